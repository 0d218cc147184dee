// Two branches side by side, with what differs marked.

import { get } from "./api.js";
import { counted } from "./counting.js";
import { el } from "./dom.js";
import { openSheet } from "./sheet.js";
import { story } from "./story.js";

/** Show how two runs of the tree differ after what they share. */
export async function compare(left, right) {
  const answer = await get(["stories", story.id, "compare"], { left: left.id, right: right.id });
  const column = (run, pieces, label) =>
    el(
      "section",
      { "aria-label": label },
      el("h3", {}, run.name || label),
      el("div", { class: "ws-prose" }, pieces.map(piece)),
    );
  const shared = answer.common
    ? `Both begin with the same ${counted(answer.common, "passage")}. What only one of them has is marked.`
    : "They share nothing at the beginning. What only one of them has is marked.";
  const columns = el(
    "div",
    { class: "ws-columns" },
    column(left, answer.left, "Left"),
    column(right, answer.right, "Right"),
  );
  openSheet(
    "Two branches",
    el("div", { class: "ws-sheet-body" }, el("p", { class: "ws-faint" }, shared), columns),
  );
}

function piece([kind, text]) {
  if (kind === "same") return document.createTextNode(text);
  return el(kind === "gone" ? "del" : "ins", {}, text);
}
