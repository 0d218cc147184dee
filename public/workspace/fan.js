// The fan: the likeliest next words, whole ones, to be taken one after the other.

import { get, latest } from "./api.js";
import { el } from "./dom.js";
import { percent } from "./distribution.js";
import { send } from "./messages.js";
import { story } from "./story.js";

const KEYS = 9;
const PATIENCE = 2000; // milliseconds

/** Twelve words as chips; a click or a digit takes one. */
export class Fan {
  #words = [];
  #taken = ""; // what was taken and is not yet in the story as far as this page knows
  #late = null; // for a story that does not say that it changed
  #ask = latest((id, after, signal) => get(["stories", id, "words"], { after }, signal));

  constructor(view) {
    this.view = view;
    this.chips = el("div", { class: "ws-chips", role: "group", "aria-label": "Next words" });
    this.end = el("p", { class: "ws-tail", "aria-hidden": "true" });
    this.element = el(
      "section",
      { "aria-label": "Next words" },
      el("h3", {}, "The next word"),
      this.end,
      this.chips,
      el(
        "p",
        { class: "ws-faint" },
        "A click takes a word into the story; so do the keys 1 to 9 in this tab.",
      ),
    );
    this.chips.addEventListener("click", (event) => {
      const index = event.target.closest("[data-word]")?.dataset.word;
      if (index !== undefined) this.take(Number(index));
    });
  }

  /** Fetch the words at the end of the story, which now has all that was taken. */
  load() {
    clearTimeout(this.#late);
    this.#taken = "";
    return this.#fetch();
  }

  /** Take a word by its place; whether there is one. */
  take(index) {
    const word = this.#words[index];
    if (!word) return false;
    this.#words = [];
    this.#taken += word.text;
    this.chips.classList.add("ws-waiting");
    send("take", { text: word.text });
    clearTimeout(this.#late);
    this.#late = setTimeout(() => this.view.attempt(() => this.#fetch()), PATIENCE);
    return true;
  }

  async #fetch() {
    const answer = story.id && (await this.#ask(story.id, this.#taken || undefined));
    if (!answer) return;
    this.#words = answer.words;
    this.#draw();
  }

  #draw() {
    const wasFocused = this.chips.contains(document.activeElement);
    this.chips.classList.remove("ws-waiting");
    this.chips.replaceChildren(...this.#words.map((word, i) => this.#chip(word, i)));
    if (wasFocused) this.chips.firstElementChild?.focus();
    this.drawEnd();
  }

  /** Show the end of the story, which the next word follows. */
  drawEnd() {
    const text = story.passages.slice(-3).map((p) => p.joint + p.text).join("");
    const tail = text.slice(-70).replace(/^\S*\s+/, "").replaceAll(/\n+/g, " ");
    this.end.textContent = tail && `… ${tail}`;
  }

  #chip({ text, p }, i) {
    const key = i < KEYS ? el("kbd", { "aria-hidden": "true" }, String(i + 1)) : null;
    const said = text.replaceAll("\n", "¶").trim() || "¶";
    return el(
      "button",
      {
        type: "button",
        class: "ws-chip",
        "data-word": i,
        title: `Take “${said}”`,
        "aria-label": `${said}, ${percent(p)}`,
        style: { "--p": p },
      },
      key,
      el("span", { class: "ws-word" }, said),
      el("span", { class: "ws-faint" }, percent(p)),
    );
  }
}
