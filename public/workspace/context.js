// What the model sees: the exact text in its order, what each source takes, what is out of sight.

import { get, latest } from "./api.js";
import { counted, number } from "./counting.js";
import { el } from "./dom.js";
import { story } from "./story.js";

const NAMES = {
  title: "Title",
  memory: "Memory",
  lore: "Lorebook",
  story: "Story",
  note: "Author’s note",
};

/** The picture below the steering. */
export class ContextView {
  #ask = latest((id, signal) => get(["stories", id, "context"], {}, signal));

  constructor(view) {
    this.view = view;
    this.element = el("section", { class: "ws-context", "aria-label": "What the model sees" });
  }

  load() {
    return this.view.attempt(async () => {
      const answer = story.id && (await this.#ask(story.id));
      if (answer) this.#draw(answer);
    });
  }

  #draw(context) {
    const { budget, used, parts } = context;
    const scrolled = this.element.querySelector(".ws-seen")?.scrollTop;
    const model = context.model || "the model";
    const summary = `${number(used)} of ${number(budget)} tokens that ${model} can see are taken.`;
    const seen = el(
      "div",
      { class: "ws-seen", tabindex: 0, role: "document", "aria-label": "The exact text" },
      this.#text(context),
    );
    this.element.replaceChildren(
      el("h3", {}, "What the model sees"),
      el("p", { class: "ws-faint" }, summary),
      this.#bar(parts, budget),
      this.#legend(parts, budget),
      ...this.#dropped(context.dropped),
      seen,
    );
    if (scrolled) seen.scrollTop = scrolled;
  }

  #bar(parts, budget) {
    const share = (part) =>
      el("span", {
        class: `ws-share ws-of-${part.source}`,
        title: `${part.label}: ${counted(part.tokens, "token")}`,
        style: { width: `${(100 * part.tokens) / budget}%` },
      });
    return el("div", { class: "ws-budget", "aria-hidden": "true" }, parts.map(share));
  }

  #legend(parts, budget) {
    const sums = new Map();
    for (const { source, tokens } of parts) sums.set(source, (sums.get(source) ?? 0) + tokens);
    const items = [...sums].map(([source, tokens]) =>
      el(
        "li",
        {},
        el("span", { class: `ws-swatch ws-of-${source}` }),
        `${NAMES[source] ?? source} ${Math.round((100 * tokens) / budget)} %`,
      ),
    );
    return el("ul", { class: "ws-legend" }, items);
  }

  #dropped(dropped) {
    if (!dropped.length) return [];
    return [el("ul", { class: "ws-dropped" }, dropped.map((why) => el("li", {}, why)))];
  }

  #text({ parts, left_out: leftOut }) {
    const nodes = [];
    let isCutShown = !leftOut;
    for (const part of parts) {
      if (part.source === "story" && !isCutShown) {
        nodes.push(
          el(
            "div",
            { class: "ws-cut", role: "separator" },
            `The first ${counted(leftOut, "word")} are out of sight`,
          ),
        );
        isCutShown = true;
      }
      nodes.push(
        el("span", { class: `ws-part ws-of-${part.source}`, title: part.label }, part.text),
      );
    }
    return nodes;
  }
}
