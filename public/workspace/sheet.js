// A sheet over the page, for what needs room: two branches side by side, three versions.

import { button, el } from "./dom.js";

/** Open a sheet; `left` is called when it closes. The browser keeps the focus inside. */
export function openSheet(title, content, { buttons = [], left = () => {} } = {}) {
  const heading = el("h2", { id: "ws-sheet-title" }, title);
  const sheet = el("dialog", {
    class: "ws-sheet",
    "aria-labelledby": "ws-sheet-title",
    tabindex: -1,
  });
  const close = () => sheet.close();
  sheet.append(
    el(
      "header",
      {},
      heading,
      el("span", { class: "ws-spring" }),
      ...buttons,
      button("Close", close, { picture: "close", title: "Close (Esc)" }),
    ),
    content,
  );
  sheet.addEventListener("close", () => {
    sheet.remove();
    left();
  });
  sheet.addEventListener("keydown", (event) => event.stopPropagation());
  document.body.append(sheet);
  sheet.showModal();
  sheet.focus(); // not the first button, which may go away
  return { sheet, close };
}
