// What can be done with one passage: the bar that a click on it opens.

import { canRead, readAloud } from "./aloud.js";
import { get, page, post } from "./api.js";
import { counted, words } from "./counting.js";
import { button, el } from "./dom.js";
import { isWriting, send } from "./messages.js";
import { story } from "./story.js";
import { toast } from "./toast.js";

/** The bar, and the text field that takes a passage's place while it is edited. */
export class PassageBar {
  passage = null;
  #editor = null;
  #hadFocus = false; // whether one was typing in it when the passages were drawn anew
  #followed = null; // the place in the story where another version is about to stand

  constructor(manuscript) {
    this.manuscript = manuscript;
    this.element = el("div", {
      class: "ws-passage-bar",
      role: "toolbar",
      "aria-label": "This passage",
      hidden: true,
    });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    manuscript.page.append(this.element);
    document.addEventListener("pointerdown", (event) => {
      const isOurs = event.target.closest?.(".ws-passage-bar, .ws-prose, .ws-toasts");
      if (!isOurs && !this.#editor) this.close();
    });
  }

  /** Open it at a passage, at the height of a click. */
  open(passage, clientY = null, isByKey = false) {
    if (this.#editor) return;
    this.#mark(false);
    this.passage = passage;
    this.#mark(true);
    this.#fill();
    this.element.hidden = false;
    this.#place(clientY);
    if (isByKey) this.element.querySelector("button:not(:disabled)").focus({ preventScroll: true });
    this.manuscript.recount();
  }

  /** Whether a passage is being worded anew. */
  get isEditing() {
    return this.#editor !== null;
  }

  /** Close it; true if there was something to close. */
  close() {
    if (this.#editor) return this.#stopEditing();
    if (!this.passage) return false;
    const hadFocus = this.element.contains(document.activeElement);
    this.#mark(false);
    this.passage = null;
    this.element.hidden = true;
    if (hadFocus) this.manuscript.root.focus({ preventScroll: true });
    this.manuscript.recount();
    return true;
  }

  /** The passages from an index on are about to be drawn anew. */
  leave(index) {
    const mine = story.passages.findIndex((p) => p.id === this.passage?.id);
    if (this.passage && !this.#editor && (mine < 0 || mine >= index)) this.close();
    if (this.#editor && mine < 0) this.#rescue();
    this.#hadFocus = this.#editor?.contains(document.activeElement) ?? false;
    this.#editor?.remove(); // until restore(): among the passages it would be in the way
  }

  /** The passages were drawn anew: show again which is chosen or edited. */
  restore() {
    const next = this.#followed !== null && story.passages[this.#followed.index];
    if (next && next.id !== this.#followed.id) {
      this.#followed = null;
      return this.open(next, null, true);
    }
    if (!this.passage) return;
    if (this.#editor) this.#putEditor();
    else this.#mark(true);
  }

  /** Stand at the end of the branch that a passage is on. */
  goTo(id) {
    send("go", { id });
  }

  #fill() {
    const { passage } = this;
    const isWritten = passage.role === "model" && passage.seed !== null; // not picked by words
    const isDone = isSettled(passage);
    const rate = (value) => this.#store({ rating: passage.rating === value ? 0 : value });
    const link = () => this.#copy(
      new URL(page(story.id, passage.id), location.origin).href,
      "Link copied.",
    );
    const pressed = (isOn) => ({ "aria-pressed": String(isOn) });
    this.element.replaceChildren(
      button("Edit", () => this.edit(), {
        picture: "pencil",
        text: "Edit",
        disabled: !isDone,
        title: "Edit (E)",
      }),
      button("Branch from here", () => this.#branch(), {
        picture: "branch",
        text: "Branch",
        disabled: passage.id === story.head,
        title: "Branch from here: the story stands here again, what follows is kept",
      }),
      button("Copy", () => this.#copy(passage.text, "Passage copied."), { picture: "copy" }),
      ...(canRead()
        ? [button("Read aloud", () => readAloud(passage.text), { picture: "sound" })]
        : []),
      button(
        "Favourite",
        () => this.#store({ favourite: !passage.favourite }),
        { picture: "star", ...pressed(passage.favourite) },
      ),
      button("Name", () => this.#askName(), {
        picture: "tag",
        title: passage.name ? `Name: ${passage.name}` : "Name",
        ...pressed(Boolean(passage.name))
      }),
      button("Good", () => rate(1), { picture: "up", ...pressed(passage.rating === 1) }),
      button("Not good", () => rate(-1), { picture: "down", ...pressed(passage.rating === -1) }),
      ...this.#versions(),
      ...(isWritten
        ? [
          button("Again exactly", () => this.#again(), {
            picture: "again",
            disabled: !isDone,
            title: "Again exactly: the same seed and settings once more; see that it is the same",
          }),
        ]
        : []),
      button("Copy a link to this passage", link, { picture: "link" }),
      button("Details", () => this.#details(), { picture: "info", "aria-expanded": "false" }),
    );
  }

  #versions() {
    const { version, versions } = this.passage;
    if (versions < 2) return [];
    const step = (by) => this.#sibling(by);
    return [
      button("Version before", () => step(-1), { picture: "left", disabled: version <= 1 }),
      el("span", { class: "ws-version" }, `${version} of ${versions}`),
      button("Version after", () => step(1), { picture: "right", disabled: version >= versions }),
    ];
  }

  #place(clientY) {
    const [first] = this.manuscript.prose.parts(this.passage.id);
    const top = this.manuscript.page.getBoundingClientRect().top;
    const line = clientY ?? first?.getBoundingClientRect().top ?? top;
    const { height } = this.element.getBoundingClientRect();
    const above = line - top - height - 20;
    const { top: edge } = this.manuscript.scroller.getBoundingClientRect();
    const isRoom = clientY === null || clientY - edge > height + 24;
    this.element.style.top = `${Math.max(isRoom && above > 0 ? above : line - top + 28, 0)}px`;
    this.element.style.maxWidth = `${this.manuscript.page.clientWidth - 16}px`;
    this.element.scrollIntoView({ block: "nearest" });
  }

  #mark(isOn) {
    if (!this.passage) return;
    for (const part of this.manuscript.prose.parts(this.passage.id)) part.classList.toggle("ws-chosen", isOn);
  }

  #key(event) {
    const buttons = [...this.element.querySelectorAll("button:not(:disabled)")];
    const at = buttons.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const turn = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.target.closest("input")) return;
    if (step) buttons.at((at + step) % buttons.length).focus();
    else if (turn) this.#neighbour(turn);
    else if (event.key === "e") this.edit();
    else return;
    event.preventDefault();
  }

  #neighbour(step) {
    const index = story.passages.findIndex((p) => p.id === this.passage.id);
    const next = story.passages[index + step];
    if (!next) return;
    this.manuscript.prose.parts(next.id)[0]?.scrollIntoView({ block: "center" });
    this.open(next, null, true);
  }

  /** Edit the passage where it stands. */
  edit() {
    const { passage } = this;
    if (!passage || !isSettled(passage)) return;
    const field = el("textarea", {
      class: "ws-editor",
      value: passage.text,
      "aria-label": "Edit this passage",
      spellcheck: false,
    });
    const fit = () => {
      field.style.height = "0";
      field.style.height = `${field.scrollHeight + 4}px`;
    };
    const save = () => this.#save(field.value);
    field.addEventListener("input", fit);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#stopEditing();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const keys = el("span", { class: "ws-faint" }, "Ctrl+Enter saves, Esc leaves it as it was");
    const row = el(
      "div",
      { class: "ws-row" },
      button("Save", save, { kind: "ws-strong" }),
      button("Cancel", () => this.#stopEditing()),
      keys,
    );
    this.#editor = el("div", { class: "ws-editing" }, field, row);
    this.element.hidden = true;
    this.#putEditor();
    fit();
    field.focus({ preventScroll: true });
    field.setSelectionRange(0, 0);
    this.#editor.scrollIntoView({ block: "nearest" });
  }

  #putEditor() {
    const parts = this.manuscript.prose.parts(this.passage.id);
    parts[0].before(this.#editor);
    for (const part of parts) part.hidden = true;
    if (this.#hadFocus) this.#editor.querySelector("textarea").focus({ preventScroll: true });
  }

  #save(text) {
    const { id } = this.passage;
    const isNew = text !== this.passage.text;
    if (!text.trim()) return toast("A passage cannot be edited to nothing; Undo takes it away.");
    this.#stopEditing();
    if (isNew) send("edit", { id, text });
  }

  #stopEditing() {
    if (!this.#editor) return false;
    this.#editor.remove();
    this.#editor = null;
    for (const part of this.manuscript.prose.parts(this.passage.id)) part.hidden = false;
    this.close();
    this.manuscript.root.focus({ preventScroll: true });
    return true;
  }

  /** The story went elsewhere while a passage was edited; what was typed is not thrown away. */
  #rescue() {
    const { value } = this.#editor.querySelector("textarea");
    const isNew = value !== this.passage.text;
    this.#stopEditing();
    if (isNew) toast("The story went on elsewhere. Your edit was not saved.", [
      "Copy it",
      () => this.#copy(value, "Copied."),
    ]);
  }

  #askName() {
    const { passage } = this;
    const field = el("input", {
      type: "text",
      value: passage.name,
      maxLength: 80,
      placeholder: "A name for this place",
      "aria-label": "Name",
    });
    const keepIt = () => this.#store({ name: field.value.trim() });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") keepIt();
      else if (event.key === "Escape") this.#fill();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.element.replaceChildren(
      field,
      button("Keep", keepIt, { kind: "ws-strong" }),
      button("Cancel", () => this.#fill()),
    );
    field.focus();
  }

  async #store(values) {
    const { passage } = this;
    try {
      await post(["stories", story.id, "passages", passage.id], values);
    } catch (error) {
      return toast(error.message, ["Try again", () => this.#store(values)]);
    }
    story.note(passage.id, values);
    if (this.passage === passage) this.#fill();
    if ("name" in values) toast(values.name ? `Named “${values.name}”.` : "The name is gone.");
  }

  #branch() {
    send("go", { id: this.passage.id });
    this.close();
    toast("The story stands here now. What came after is kept under Branches.", [
      "Undo",
      () => send("undo"),
    ]);
  }

  #again() {
    send("again", { id: this.passage.id }); // the page says what came of it
  }

  /** Go to the end of the branch that another version of the passage is on. */
  async #sibling(step) {
    const { id, siblings } = this.passage;
    const wanted = siblings[siblings.indexOf(id) + step];
    if (!wanted) return;
    try {
      const { runs } = await get(["stories", story.id, "tree"]);
      this.#followed = { id, index: story.passages.findIndex((p) => p.id === id) };
      send("go", { id: runs.find((run) => run.first === wanted)?.id ?? wanted });
    } catch (error) {
      toast(error.message);
    }
  }

  #details() {
    const { passage } = this;
    const shown = this.element.querySelector(".ws-details");
    this.element.lastElementChild.setAttribute("aria-expanded", String(!shown));
    if (shown) return shown.remove();
    const { length } = [...passage.text];
    const facts = [
      ["Written by", passage.role === "model" ? passage.model : "you"],
      ["Seed", passage.seed],
      ["Ended", ENDINGS[passage.finish] ?? passage.finish],
      ...settingsOf(passage),
      ["Length", `${counted(words(passage.text), "word")}, ${counted(length, "character")}`],
      ["Changed by you", passage.edited?.length ? counted(passage.edited.length, "place") : null],
      ["When", passage.at && new Date(passage.at).toLocaleString()],
    ].filter(([, value]) => value !== null && value !== undefined && value !== "");
    const list = facts.map(
      ([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, String(value))],
    );
    const details = el("dl", { class: "ws-details" }, list);
    this.element.insertBefore(details, null);
    details.scrollIntoView({ block: "nearest" });
  }

  #copy(text, done) {
    navigator.clipboard.writeText(text).then(
      () => toast(done),
      () => toast("The browser did not allow copying."),
    );
  }
}

/** Whether nobody is writing at it. One that was picked word by word stays open for more. */
const isSettled = (passage) => passage.state === "complete" || !isWriting();

const settingsOf = ({ settings }) =>
  Object.entries(settings ?? {}).filter(
    ([name, value]) => !["seed", "picked"].includes(name) && value !== false && typeof value !== "object",
  );

const ENDINGS = {
  length: "at its full length",
  stop: "where the model ended it",
  cancelled: "where you stopped it",
  picked: "where you took its last word",
  interrupted: "when storygen ended",
  loop: "where it began to repeat itself",
  time: "after as long as a passage may take here",
  error: "where something went wrong",
};
