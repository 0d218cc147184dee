// Find and replace throughout the active branch.

import { get, latest } from "./api.js";
import { button, debounced, el, tick } from "./dom.js";
import { send } from "./messages.js";
import { story } from "./story.js";

const HIGHLIGHTS = globalThis.CSS?.highlights; // where there are none, the found text is selected

/** The bar above the manuscript. */
export class FindBar {
  #hits = [];
  #count = 0;
  #at = -1;
  #options = { case: 0, words: 0 };
  #ask = latest(
    (text, options, signal) => get(["stories", story.id, "find"], { text, ...options }, signal),
  );

  constructor(manuscript) {
    this.manuscript = manuscript;
    this.field = el("input", { type: "search", placeholder: "Find", "aria-label": "Find" });
    this.other = el("input", {
      type: "text",
      placeholder: "Replace with",
      "aria-label": "Replace with",
    });
    this.status = el("span", { class: "ws-faint", role: "status", "aria-live": "polite" });
    this.all = button("Replace all", () => this.#replace(), { disabled: true });
    const search = debounced(() => this.#search(), 200);
    const option = (name) => (isOn) => {
      this.#options[name] = Number(isOn);
      this.#search();
    };
    this.field.addEventListener("input", search);
    this.element = el(
      "div",
      { class: "ws-find", role: "search", hidden: true },
      el(
        "div",
        { class: "ws-row" },
        this.field,
        button("Hit before", () => this.#step(-1), { picture: "left" }),
        button("Next hit", () => this.#step(1), { picture: "right" }),
        button("Close the search", () => this.toggle(), { picture: "close" }),
      ),
      el("div", { class: "ws-row" }, this.other, this.all),
      el(
        "div",
        { class: "ws-row" },
        tick("Aa", false, option("case"), "Capitals matter"),
        tick("Whole words", false, option("words")),
        el("span", { class: "ws-spring" }),
        this.status,
      ),
    );
    this.element.addEventListener("keydown", (event) => this.#key(event));
    story.addEventListener("passages", () => this.element.hidden || search());
  }

  /** Open or close it. */
  toggle() {
    this.element.hidden = !this.element.hidden;
    if (this.element.hidden) {
      HIGHLIGHTS?.delete("ws-hits");
      HIGHLIGHTS?.delete("ws-hit");
      this.manuscript.root.focus({ preventScroll: true });
    } else {
      this.field.focus();
      this.field.select();
      this.#search();
    }
  }

  async #search() {
    const text = this.field.value;
    this.all.disabled = !text; // a button that is disabled under the mouse is not clicked
    if (!text || !story.id) return this.#show({ count: 0, hits: [] }, "");
    try {
      const answer = await this.#ask(text, this.#options);
      if (answer) this.#show(answer, answer.count ? "" : "Not found");
    } catch (error) {
      this.#show({ count: 0, hits: [] }, error.message);
    }
  }

  #show({ count, hits }, sentence) {
    this.#hits = hits;
    this.#count = count;
    this.#at = Math.min(this.#at, hits.length - 1);
    this.all.disabled = count === 0;
    this.status.textContent = sentence;
    if (count) this.#tell();
    const ranges = hits.map((hit) => this.#range(hit)).filter(Boolean);
    HIGHLIGHTS?.set("ws-hits", new Highlight(...ranges));
    HIGHLIGHTS?.delete("ws-hit");
  }

  #tell() {
    const place = this.#at < 0 ? "" : `${this.#at + 1} of `;
    this.status.textContent = `${place}${this.#count} found`;
  }

  #range(hit) {
    const passage = story.passages.find((p) => p.id === hit.passage);
    return passage && this.manuscript.prose.range(passage, hit.start, hit.end);
  }

  #step(by) {
    if (!this.#hits.length) return;
    this.#at = (this.#at + by + this.#hits.length) % this.#hits.length;
    const range = this.#range(this.#hits[this.#at]);
    this.#tell();
    if (!range) return;
    range.startContainer.parentElement?.scrollIntoView({ block: "nearest" });
    const { scroller } = this.manuscript;
    const [box, hit] = [scroller.getBoundingClientRect(), range.getBoundingClientRect()];
    if (hit.top < box.top || hit.bottom > box.bottom) scroller.scrollTop += hit.top - box.top - box.height / 2;
    HIGHLIGHTS?.set("ws-hit", new Highlight(range));
    if (!HIGHLIGHTS) getSelection().setBaseAndExtent(
      range.startContainer,
      range.startOffset,
      range.endContainer,
      range.endOffset,
    );
  }

  #replace() {
    const options = { case: Boolean(this.#options.case), words: Boolean(this.#options.words) };
    send("replace", { text: this.field.value, with: this.other.value, ...options });
  }

  #key(event) {
    if (event.key === "Escape") this.toggle();
    else if (event.key === "Enter" && event.target === this.field) this.#step(
      event.shiftKey ? -1 : 1,
    );
    else if (event.key === "Enter" && event.target === this.other && !this.all.disabled) this.#replace();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
