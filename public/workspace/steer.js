// The tab that steers: what the model is told, and below it what it therefore sees.

import { get, post } from "./api.js";
import { ContextView } from "./context.js";
import { button, debounced, el, tick } from "./dom.js";
import { story } from "./story.js";
import { toast } from "./toast.js";
import { View } from "./view.js";

const QUIET = 600; // milliseconds without a key, after which it is saved

/** Memory, note, lore and what stops a passage; saved as one types. */
export class Steer extends View {
  name = "steer";
  #steering = null;
  #changed = {}; // what of it is to be saved: another window may have changed the rest
  #of = null; // the story that the steering on the page belongs to
  #save = debounced(() => this.#store(), QUIET);

  constructor() {
    super("Steer");
    this.context = new ContextView(this);
    this.saved = el("p", { class: "ws-saved", role: "status", "aria-live": "polite" });
    this.element.prepend(this.saved);
    story.addEventListener("opened", () => {
      this.#save.flush();
      this.stale();
    });
    const redraw = debounced(() => this.isShown && this.#of && this.context.load(), 400);
    for (const type of ["elsewhere", "passages"]) story.addEventListener(type, redraw);
    window.addEventListener("pagehide", () => this.#save.isDue() && this.#store(true));
    this.body.addEventListener("focusout", () => this.#save.flush());
  }

  show() {
    super.show();
    if (this.#of) this.context.load();
  }

  hide() {
    super.hide();
    this.#save.flush();
  }

  async load() {
    const none = this.noStory();
    this.#of = null;
    if (none) return this.body.replaceChildren(none);
    const { id } = story;
    const steering = await get(["stories", id, "steering"]);
    if (id !== story.id) return undefined;
    [this.#steering, this.#of] = [steering, id];
    this.saved.textContent = "";
    this.body.replaceChildren(this.#form(), this.context.element);
    return this.context.load();
  }

  #change(values) {
    Object.assign(this.#steering, values);
    Object.assign(this.#changed, values);
    this.saved.textContent = "…";
    this.#save();
  }

  async #store(isLast = false) {
    const [id, changed] = [this.#of, this.#changed];
    this.#changed = {};
    await this.attempt(async () => {
      try {
        await post(["stories", id, "steering"], changed, isLast);
      } catch (error) {
        this.#changed = { ...changed, ...this.#changed }; // still to be saved
        throw error;
      }
      if (id !== this.#of) return;
      this.saved.textContent = this.#save.isDue() ? "…" : "Saved";
      if (this.isShown) this.context.load();
    });
    if (!this.trouble.hidden) this.saved.textContent = "Not saved yet";
  }

  #form() {
    const now = this.#steering;
    const set = (name) => (value) => this.#change({ [name]: value });
    const depth = el("input", {
      type: "number",
      min: 0,
      max: 50,
      value: now.note_depth,
      "aria-label": "Paragraphs from the end",
    });
    depth.addEventListener(
      "input",
      () => depth.validity.valid && depth.value && this.#change({
        note_depth: depth.valueAsNumber,
      }),
    );
    return el(
      "div",
      { class: "ws-form" },
      area(
        "Memory",
        "Always in front of the model: who, where, when.",
        now.memory,
        set("memory"),
        3,
      ),
      area(
        "Author’s note",
        "Stands close to the end, so it weighs much: mood, pace, what this scene is about.",
        now.note,
        set("note"),
        2,
      ),
      el("label", { class: "ws-inline" }, "The note stands ", depth, " paragraphs before the end."),
      this.#lore(),
      line("Title", "For models of film plots: they begin from it.", now.title, set("title")),
      list(
        "Stop at",
        "A passage ends before any of these, one on each line.",
        now.stop,
        set("stop"),
      ),
      list(
        "Never write",
        "Words and phrases the model may not use, one on each line.",
        now.banned,
        set("banned"),
      ),
      tick(
        "End each passage at the end of a sentence",
        now.end_at_sentence,
        set("end_at_sentence"),
      ),
      tick("Stop when it begins to repeat itself, and say so", now.loop_guard, set("loop_guard")),
    );
  }

  #lore() {
    const entries = el("div", { class: "ws-lore" });
    const draw = () => entries.replaceChildren(
      ...this.#steering.lore.map((entry) => this.#entry(entry, draw))
    );
    const add = () => {
      this.#change({ lore: [...this.#steering.lore, { name: "", keys: [], text: "", on: true }] });
      draw();
      entries.lastElementChild.querySelector("input[type=text]").focus();
    };
    draw();
    return el(
      "fieldset",
      {},
      el("legend", {}, "Lorebook"),
      el(
        "p",
        { class: "ws-faint" },
        "People and places. An entry comes before the model when one of its keys stands in the last pages.",
      ),
      entries,
      button("Add an entry", add),
    );
  }

  #entry(entry, draw) {
    const set = (name, value) => {
      entry[name] = value;
      this.#change({ lore: this.#steering.lore });
    };
    const remove = () => {
      const before = this.#steering.lore;
      const restore = () => {
        this.#change({ lore: before });
        draw();
      };
      this.#change({ lore: before.filter((each) => each !== entry) });
      draw();
      toast(`The entry ${entry.name || "without a name"} is gone.`, ["Undo", restore]);
    };
    const keys = (value) => set("keys", value.split(",").map((key) => key.trim()).filter(Boolean));
    return el(
      "div",
      {
        class: `ws-entry ${entry.on ? "" : "ws-off"}`,
        role: "group",
        "aria-label": entry.name || "Entry",
      },
      el(
        "div",
        { class: "ws-row" },
        input("Name", entry.name, (value) => set("name", value)),
        tick("On", entry.on, (value) => {
          set("on", value);
          draw();
        }),
        button("Remove this entry", remove, { picture: "bin" }),
      ),
      input("Keys, with commas between", entry.keys.join(", "), keys),
      typed(
        el("textarea", {
          rows: 2,
          value: entry.text,
          placeholder: "What the model should know",
          "aria-label": "What the model should know",
        }),
        (value) => set("text", value),
      ),
    );
  }
}

/** A field that says what is typed into it, and grows with it where it has lines. */
function typed(field, take) {
  field.addEventListener("input", () => take(field.value));
  return field;
}

const input = (label, value, take) =>
  typed(el("input", { type: "text", value, placeholder: label, "aria-label": label }), take);

const labelled = (label, hint, field) =>
  el(
    "label",
    { class: "ws-field" },
    el("span", { class: "ws-label" }, label),
    el("span", { class: "ws-faint" }, hint),
    field,
  );

const area = (label, hint, value, take, rows) => labelled(
  label,
  hint,
  typed(el("textarea", { rows, value }), take),
);

const line = (label, hint, value, take) => labelled(
  label,
  hint,
  typed(el("input", { type: "text", value }), take),
);

function list(label, hint, values, take) {
  const lines = (text) => text.split("\n").filter((each) => each.trim() !== "");
  return labelled(
    label,
    hint,
    typed(el("textarea", { rows: 2, value: values.join("\n") }), (text) => take(lines(text))),
  );
}
