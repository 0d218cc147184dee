// The tab with the manuscript: clean prose, what it counts, and where a click leads.

import { counted, number, readingTime, words } from "./counting.js";
import { button, eachFrame, el, isTyping, tick } from "./dom.js";
import { PassageBar } from "./passage.js";
import { FindBar } from "./find.js";
import { Prose } from "./prose.js";
import { keep, kept } from "./reading.js";
import { story } from "./story.js";
import { toast } from "./toast.js";

const NEAR = 48; // pixels from the end that still count as being there

/** The active branch as one text. */
export class Manuscript {
  name = "manuscript";
  label = "Manuscript";
  #dirty = 0; // the index from which on the page is not what the story is; null: all is shown
  #grown = false;
  #isShown = false;
  #wanted = null; // the passage that a link asked for

  constructor() {
    this.root = el("div", {
      class: "ws-prose",
      tabindex: 0,
      role: "document",
      "aria-label": "The manuscript. Enter opens the tools of a passage.",
    });
    this.prose = new Prose(this.root);
    this.page = el("div", { class: "ws-page" }, this.root);
    this.scroller = el("div", { class: "ws-scroll" }, this.page);
    this.hint = el("p", { class: "ws-empty" });
    this.page.prepend(this.hint);
    this.bar = new PassageBar(this);
    this.find = new FindBar(this);
    this.counts = el("div", { class: "ws-counts" });
    this.element = el(
      "div",
      { class: "ws-column" },
      this.#head(),
      this.find.element,
      this.scroller,
      this.counts,
    );
    this.#listen();
  }

  show() {
    this.#isShown = true;
    this.#draw();
  }

  hide() {
    this.#isShown = false;
    if (!this.bar.isEditing) this.bar.close(); // what is being typed waits where it is
  }

  /** Scroll to a passage and show which it is; now, or as soon as the story is there. */
  reveal(id) {
    this.#wanted = id;
    this.#answerLink();
  }

  /** The passage a node lies in. */
  passageAt(node) {
    const id = node?.closest?.("[data-passage]")?.dataset.passage;
    return id && story.passages.find((p) => p.id === id);
  }

  /** Close the bar of a passage, else the search; true if there was something to close. */
  closeTools() {
    if (this.bar.close()) return true;
    if (this.find.element.hidden || !this.#isShown) return false;
    this.find.toggle();
    return true;
  }

  #head() {
    const isTinted = kept("storygen.tint") === "yes";
    this.root.classList.toggle("ws-tint", isTinted);
    const tint = (isOn) => {
      this.root.classList.toggle("ws-tint", isOn);
      keep("storygen.tint", isOn ? "yes" : "");
    };
    return el(
      "div",
      { class: "ws-tools" },
      tick(
        "Show the model’s words",
        isTinted,
        tint,
        "Tints what a model wrote; what you changed in it is yours",
      ),
      el("span", { class: "ws-spring" }),
      button("Find and replace", () => this.find.toggle(), { picture: "search" }),
      button("Copy the whole manuscript", () => this.#copyAll(), { picture: "copy" }),
    );
  }

  #listen() {
    const draw = eachFrame(() => this.#draw());
    story.addEventListener("passages", ({ detail }) => {
      this.#dirty = Math.min(this.#dirty ?? Infinity, detail);
      draw();
    });
    story.addEventListener("grown", () => {
      this.#grown = true;
      draw();
    });
    story.addEventListener("elsewhere", draw);
    this.root.addEventListener("click", (event) => this.#click(event));
    this.root.addEventListener("keydown", (event) => this.#key(event));
    // The browser may fire it at the page's body, whatever is selected.
    document.addEventListener("copy", (event) => this.#copy(event), true);
  }

  #draw() {
    if (!this.#isShown) return;
    const wasAtEnd = this.#dirty === 0 || this.#isAtEnd();
    if (this.#dirty !== null) {
      this.bar.leave(this.#dirty);
      this.prose.show(story.passages, this.#dirty);
      this.bar.restore();
    } else if (this.#grown) {
      this.prose.grow(story.passages.at(-1));
    }
    if ((this.#dirty !== null || this.#grown) && wasAtEnd) this.#toEnd(3);
    this.#dirty = null;
    this.#grown = false;
    this.root.ariaBusy = String(story.isGrowing);
    this.#count();
    this.#answerLink();
  }

  /** Scroll to the end; again in the next frames, since what was guessed is measured only there. */
  #toEnd(times = 1, before = 0) {
    if (this.scroller.scrollTop < before) return; // the reader went elsewhere meanwhile
    this.scroller.scrollTop = this.scroller.scrollHeight;
    const here = this.scroller.scrollTop;
    if (times > 1) requestAnimationFrame(() => this.#toEnd(times - 1, here));
  }

  #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  #count() {
    const isEmpty = story.passages.length === 0;
    this.hint.hidden = !isEmpty;
    this.hint.textContent =
      story.id && !story.isLoaded
        ? "Opening the story…"
        : "What you and the model write appears here as one text.";
    const { all, gained } = story.counts();
    const of = this.bar.passage;
    const here = of ? words(of.text) : 0;
    const figure = (label, value) => el("span", {}, el("b", {}, label), " ", value);
    this.counts.replaceChildren(
      ...(of ? [figure("Passage", `${counted(here, "word")}, ${readingTime(here)}`)] : []),
      figure(
        "Since you opened it",
        `${gained < 0 ? "−" : "+"}${counted(Math.abs(gained), "word")}`,
      ),
      figure("Story", `${counted(all, "word")}, ${readingTime(all)} to read`),
    );
    this.counts.title = `Reading time at ${number(250)} words a minute`;
  }

  /** The bar of a passage came or went. */
  recount() {
    this.#count();
  }

  #click(event) {
    const passage = this.passageAt(event.target);
    if (event.target.closest("textarea, button") || !getSelection().isCollapsed) return;
    if (passage) this.bar.open(passage, event.clientY);
    else this.bar.close();
  }

  #key(event) {
    if (isTyping(event.target)) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a" && !event.altKey) {
      getSelection().selectAllChildren(this.root);
      event.preventDefault();
    } else if (event.key === "Enter" && event.target === this.root && !event.ctrlKey) {
      const passage = this.bar.passage ?? this.#inView() ?? story.passages.at(-1);
      if (passage) this.bar.open(passage, null, true);
      event.preventDefault();
    }
  }

  /** The passage in the middle of what one sees. */
  #inView() {
    const box = this.scroller.getBoundingClientRect();
    const node = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    return this.passageAt(node);
  }

  #copy(event) {
    const selection = getSelection();
    if (isTyping(event.target) || !selection.rangeCount) return;
    const range = selection.getRangeAt(0);
    if (!this.root.contains(range.commonAncestorContainer)) return;
    event.clipboardData.setData("text/plain", range.toString());
    event.preventDefault();
    event.stopPropagation();
  }

  #copyAll() {
    const text = story.passages.map((p) => p.joint + p.text).join("");
    navigator.clipboard.writeText(text).then(
      () => toast(`Copied ${counted(story.counts().all, "word")}.`),
      () => toast("The browser did not allow copying. Select the text and press Ctrl+C."),
    );
  }

  #answerLink() {
    if (!this.#wanted || !this.#isShown || !story.isLoaded) return;
    const [part] = this.prose.parts(this.#wanted);
    const id = this.#wanted;
    this.#wanted = null;
    if (!part) return this.#offer(id);
    part.scrollIntoView({ block: "center" });
    for (const each of this.prose.parts(id)) {
      each.classList.add("ws-found");
      setTimeout(() => each.classList.remove("ws-found"), 4000);
    }
  }

  #offer(id) {
    toast("The passage of this link is on another branch.", ["Go there", () => this.bar.goTo(id)]);
  }
}
