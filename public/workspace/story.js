// The story this window shows: the passages of its active branch, as far as they are known here.

import { get, storyOfPage } from "./api.js";
import { lengthOf, position, wordsOf } from "./counting.js";
import { on } from "./messages.js";

/**
 * Events: `opened` (another story, or none), `passages` (detail: the index from which on they are
 * new), `grown` (detail: the passage), `elsewhere` (something changed that the branch does not
 * show), `failed` (detail: an Error).
 */
class Story extends EventTarget {
  id = null;
  title = "";
  head = null;
  canRedo = false;
  passages = [];
  isLoaded = false;
  /** Whether anybody looks; nothing is fetched for nobody. */
  isWatched = false;
  #begunWith = new Map();
  #due = null; // what is to be fetched: what is "new", or the "whole"
  #isFetching = false;
  #live = null; // the passage being written, as far as it was heard from its first word

  /** Take the story of the page's address, or the one given. */
  open(id = storyOfPage()) {
    if (id === this.id) return;
    this.id = id;
    Object.assign(this, { title: "", head: null, canRedo: false, passages: [], isLoaded: false });
    this.#say("opened");
    this.#say("passages", 0);
    this.refresh();
  }

  /** From now on somebody looks. */
  watch() {
    this.isWatched = true;
    if (!this.isLoaded || this.#due) this.refresh();
  }

  /** Fetch what is new; everything again with `isWhole`. One fetch at a time: what is asked for
   * meanwhile comes after it, so that a story that grows quickly is never in its own way. */
  refresh(isWhole = false) {
    this.#due = isWhole || this.#due === "whole" ? "whole" : "new";
    if (!this.#isFetching) this.#fetchDue();
  }

  async #fetchDue() {
    this.#isFetching = true;
    while (this.#due && this.id && this.isWatched) {
      const [id, isWhole] = [this.id, this.#due === "whole"];
      const known = isWhole ? undefined : this.passages.findLast((p) => p.state === "complete");
      this.#due = null;
      try {
        const answer = await get(["stories", id, "manuscript"], { after: known?.id });
        if (id === this.id) this.#take(answer, isWhole);
      } catch (error) {
        if (id === this.id) this.#say("failed", error);
      }
    }
    this.#isFetching = false;
  }

  /** Whether a model writes its last passage, as far as is known here. */
  get isGrowing() {
    const last = this.passages.at(-1);
    return last?.state === "streaming" && !last.settings?.picked;
  }

  /** The words of the whole branch, and how many came since the page was opened. */
  counts() {
    const all = wordsOf(this.passages);
    return { all, gained: all - (this.#begunWith.get(this.id) ?? all) };
  }

  /** Say of a passage what was just stored of it. */
  note(passageId, values) {
    const passage = this.passages.find((p) => p.id === passageId);
    if (passage) Object.assign(passage, values);
    this.#say("elsewhere");
  }

  /** The story moved to another head, which may be known here already: undo needs no request. */
  changed({ story, head, can_redo }) {
    if (story && story !== this.id) return this.#begin(story);
    this.canRedo = Boolean(can_redo);
    const index = this.passages.findIndex((p) => p.id === head);
    const known = this.passages.slice(0, index + 1);
    const isKnown = index >= 0 && known.every((p) => p.state === "complete");
    if (this.isLoaded && isKnown && !this.#isFetching) {
      this.head = head;
      this.#cut(index + 1);
    } else {
      this.refresh();
    }
    this.#say("elsewhere");
  }

  /** A passage grew; its text from character `from` on is known. */
  grow({ id, parent, from, text, version, done }) {
    if ((version ?? null) !== null) return;
    if (from === 0) this.#live = { id, parent, text: "", isDone: false };
    const live = this.#live?.id === id && from <= lengthOf(this.#live.text) ? this.#live : null;
    if (live) {
      live.text = live.text.slice(0, position(live.text, from)) + text;
      live.isDone = Boolean(done);
    }
    if (!this.isLoaded) return;
    if (!live) return void this.refresh();
    let passage = this.passages.find((p) => p.id === id);
    if (!passage) {
      const before = parent ? this.passages.findIndex((p) => p.id === parent) : -1;
      if (parent && before < 0) return void this.refresh();
      this.#cut(before + 1);
      passage = { ...UNKNOWN, id };
      this.passages.push(passage);
      this.#say("passages", this.passages.length - 1);
    }
    const was = passage.text;
    Object.assign(passage, { text: live.text, words: undefined, finish: done ?? null });
    if (live.text.startsWith(was)) this.#say("grown", passage);
    else this.#say("passages", this.passages.indexOf(passage));
  }

  /** A new story is written where none was. */
  #begin(id) {
    if (this.id || (storyOfPage() ?? id) !== id) return;
    this.#begunWith.set(id, 0);
    this.open(id);
  }

  begun = (id) => this.#begin(id);

  #take(answer, isWhole) {
    const kept = isWhole || !answer.after ? -1 : this.passages.findIndex(
      (p) => p.id === answer.after,
    );
    if (answer.after && kept < 0 && !isWhole) return void this.refresh(true);
    for (const passage of answer.passages)
      if (passage.state === "streaming" && passage.id === this.#live?.id)
        passage.text = this.#live.text; // what is stored may be a second old
    const was = this.isLoaded ? this.passages.length : -1;
    const begun = this.#begunSince(answer);
    this.passages = [...this.passages.slice(0, kept + 1), ...answer.passages, ...begun];
    Object.assign(this, { title: answer.title, head: answer.head, canRedo: answer.can_redo });
    this.isLoaded = true;
    if (!this.#begunWith.has(this.id)) this.#begunWith.set(this.id, wordsOf(this.passages));
    if (answer.passages.length || was !== this.passages.length) this.#say("passages", kept + 1);
  }

  /** The passage being written, where the answer left before it was begun. */
  #begunSince(answer) {
    const live = this.#live;
    if (!live || live.isDone || answer.head !== live.parent) return [];
    return this.passages.filter((p) => p.id === live.id);
  }

  #cut(length) {
    if (length >= this.passages.length) return;
    this.passages.length = length;
    this.#say("passages", length);
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const UNKNOWN = {
  role: "model",
  text: "",
  joint: "",
  state: "streaming",
  model: null,
  seed: null,
  finish: null,
  edited: null,
  rating: 0,
  favourite: false,
  name: "",
  version: 1,
  versions: 1,
  siblings: [],
  at: null,
};

export const story = new Story();

on("story", (id) => story.begun(id));
on("changed", (change) => story.changed(change));
on("growing", (growth) => story.grow(growth));
