// What all tabs but the manuscript share: a body, and a place for what went wrong.

import { button, el } from "./dom.js";
import { story } from "./story.js";

/** A tab that fetches what it shows. Subclasses have `name`, `label` and `load()`. */
export class View {
  isShown = false;
  #isStale = true;

  constructor(label) {
    this.trouble = el("div", { class: "ws-trouble", role: "alert", hidden: true });
    this.body = el("div", { class: "ws-body" });
    this.element = el(
      "div",
      { class: "ws-column" },
      this.trouble,
      el("div", { class: "ws-scroll" }, this.body),
    );
    this.label = label;
  }

  show() {
    this.isShown = true;
    if (this.#isStale) this.reload();
  }

  hide() {
    this.isShown = false;
  }

  /** What is shown is no longer so. */
  stale() {
    this.#isStale = true;
    if (this.isShown) this.reload();
  }

  /** Fetch and draw; what goes wrong is said where one looks. */
  reload() {
    this.#isStale = false;
    return this.attempt(() => this.load());
  }

  /** Do something that may fail with a sentence; offers to try again. */
  async attempt(work) {
    try {
      this.trouble.hidden = true;
      return await work();
    } catch (error) {
      const again = button("Try again", () => this.attempt(work));
      this.trouble.replaceChildren(el("span", {}, error.message), again);
      this.trouble.hidden = false;
      return undefined;
    }
  }

  /** What to say while there is no story, or null. */
  noStory() {
    return story.id ? null : el(
      "p",
      { class: "ws-empty" },
      "Begin a story, or open one from the list, and it shows here.",
    );
  }
}
