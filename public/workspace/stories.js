// The tab with all stories: found, named, copied, put away, taken out and brought in.

import { address, get, latest, page, post, upload } from "./api.js";
import { counted, number } from "./counting.js";
import { button, debounced, el } from "./dom.js";
import { story } from "./story.js";
import { toast } from "./toast.js";
import { View } from "./view.js";

const FORMATS = {
  txt: "Plain text",
  md: "Markdown",
  docx: "Word",
  epub: "E-book",
  html: "Web page",
  json: "Everything (JSON)",
};
const DRAFTS = [".txt", ".md", ".docx", ".odt", ".epub", ".rtf", ".html", ".json"];
const LARGEST = 20_000_000; // bytes of a draft; a story of ours may have more
const LARGEST_STORY = 64_000_000;

/** The list, with import and export. */
export class Stories extends View {
  name = "stories";
  #next = null;
  #isDue = false; // the list waits to be drawn anew until nobody is at a menu or a title
  #shelf = "current"; // or archived, deleted
  #ask = latest((query, signal) => get(["stories"], query, signal));

  constructor() {
    super("Stories");
    this.search = el("input", {
      type: "search",
      placeholder: "Search stories",
      "aria-label": "Search stories",
    });
    this.search.addEventListener("input", debounced(() => this.reload(), 250));
    this.shelf = el(
      "select",
      { "aria-label": "Which stories", onchange: () => this.#goTo(this.shelf.value) },
      ...["current", "archived", "deleted"].map(
        (name) => el("option", { value: name }, name[0].toUpperCase() + name.slice(1)),
      ),
    );
    this.file = el("input", { type: "file", accept: DRAFTS.join(","), hidden: true });
    this.file.addEventListener("change", () => this.#bringIn([...this.file.files]));
    this.list = el("ul", { class: "ws-stories" });
    this.more = button("Show more", () => this.attempt(() => this.#fetch(this.#next)));
    const bringIn = button("Import a draft", () => this.file.click(), {
      kind: "ws-strong",
      title: `${DRAFTS.join(" ")}, at most 20 MB; or drop it here`,
    });
    const take = (path, label, title) => el(
      "a",
      { class: "ws-button", href: address(path), download: "", title },
      label,
    );
    const top = el("div", { class: "ws-tools" }, this.search, this.shelf, bringIn, this.file);
    const foot = el(
      "div",
      { class: "ws-tools ws-foot" },
      take(["export"], "All stories (zip)", "Every story as JSON and Markdown"),
      take(
        ["feedback"],
        "Your thumbs (JSON Lines)",
        "What you liked and did not, with what the model was asked",
      ),
    );
    this.body.append(this.list, this.more);
    this.element.prepend(top);
    this.element.append(foot);
    this.list.addEventListener(
      "keydown",
      (event) => event.key === "Escape" && this.#closeMenus(event),
    );
    story.addEventListener("opened", () => this.stale());
    story.addEventListener("elsewhere", debounced(() => this.stale(), 1000));
    this.#acceptDrops();
  }

  load() {
    return this.#fetch(null);
  }

  /** Draw what could not be drawn while somebody was at the list. */
  #catchUp() {
    if (this.#isDue && !this.#isInUse()) this.reload();
  }

  #isInUse() {
    return this.list.querySelector("input, [open]") !== null;
  }

  async #fetch(before) {
    const shelf = {
      archived: this.#shelf === "archived" ? 1 : undefined,
      deleted: this.#shelf === "deleted" ? 1 : undefined,
    };
    const answer = await this.#ask({
      search: this.search.value || undefined,
      ...shelf,
      limit: 50,
      before,
    });
    if (!answer) return;
    this.#isDue = !before && this.#isInUse(); // perhaps only since it was asked
    if (this.#isDue) return;
    const rows = answer.stories.map((each) => this.#row(each));
    if (before) this.list.append(...rows);
    else this.list.replaceChildren(...(rows.length ? rows : [this.#none()]));
    this.#next = answer.next;
    this.more.hidden = !answer.next;
  }

  #none() {
    const nothing = {
      current: "No stories yet.",
      archived: "Nothing is archived.",
      deleted: "Nothing is deleted.",
    };
    return el(
      "li",
      { class: "ws-empty" },
      this.search.value ? "No story has these words." : nothing[this.#shelf],
    );
  }

  #goTo(shelf) {
    this.#shelf = shelf;
    this.list.replaceChildren();
    this.reload();
  }

  #row(each) {
    const changed = new Date(each.updated).toLocaleDateString(undefined, { dateStyle: "medium" });
    const facts = `${counted(each.passages, "passage")} · ${changed}`;
    const title = el(
      "a",
      { href: page(each.id), class: "ws-story-title" },
      each.title || "Untitled",
    );
    const text = el(
      "div",
      { class: "ws-run-text" },
      title,
      el("span", { class: "ws-faint" }, facts),
    );
    const isHere = each.id === story.id;
    const row = el(
      "li",
      { class: `ws-story ${isHere ? "ws-here" : ""}`, "aria-current": isHere ? "true" : undefined },
      text,
    );
    row.append(
      this.#shelf === "deleted" ? button(
        "Recover",
        () => this.#set(each, { deleted: false }),
      ) : this.#menu(each, text),
    );
    return row;
  }

  #menu(each, text) {
    const menu = el("details", { class: "ws-menu" });
    const close = () => void (menu.open = false); // false would cancel the click
    const item = (label, act) =>
      button(label, () => {
        close();
        act();
      });
    const links = Object.entries(FORMATS).map(([format, label]) =>
      el(
        "a",
        {
          class: "ws-button",
          href: address(["stories", each.id, "export", format]),
          download: "",
          onclick: close,
        },
        label,
      ),
    );
    menu.append(
      el(
        "summary",
        { "aria-label": `What to do with ${each.title}`, title: "Rename, copy, export …" },
        "⋯",
      ),
      el(
        "div",
        { class: "ws-popover" },
        item("Rename", () => this.#rename(each, text)),
        item("Duplicate", () => this.#duplicate(each)),
        item(
          each.archived ? "Take out of the archive" : "Archive",
          () => this.#set(each, { archived: !each.archived }),
        ),
        item("Delete", () => this.#delete(each)),
        el("h4", {}, "Export"),
        el("div", { class: "ws-formats" }, links),
      ),
    );
    menu.addEventListener("toggle", () => {
      if (menu.open) this.#closeMenus(null, menu);
      else this.#catchUp();
    });
    return menu;
  }

  #closeMenus(event, except = null) {
    for (const menu of this.list.querySelectorAll("details[open]")) if (menu !== except) menu.open = false;
    event?.stopPropagation();
  }

  #rename(each, text) {
    const field = el("input", {
      type: "text",
      value: each.title,
      maxLength: 200,
      "aria-label": "Title",
    });
    const [title] = text.children;
    let isOver = false; // taking the field away blurs it, which says so once more
    const leave = () => {
      if (isOver) return false;
      isOver = true;
      field.replaceWith(title);
      this.#catchUp();
      return true;
    };
    const done = () => {
      if (!leave()) return;
      const name = field.value.trim();
      if (name && name !== each.title) this.#set(each, { title: name });
    };
    field.addEventListener("blur", done);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") done();
      else if (event.key === "Escape") leave();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    title.replaceWith(field);
    field.focus();
    field.select();
  }

  #set(each, values) {
    return this.attempt(async () => {
      await post(["stories", each.id], values);
      await this.load();
      return true;
    });
  }

  async #delete(each) {
    if (await this.#set(each, { deleted: true }))
      toast(`“${each.title}” is deleted.`, ["Undo", () => this.#set(each, { deleted: false })]);
  }

  #duplicate(each) {
    return this.attempt(async () => {
      const copy = await post(["stories", each.id, "duplicate"]);
      await this.load();
      toast(
        `“${copy.title}” is a copy of its own.`,
        ["Open it", () => location.assign(page(copy.id))],
      );
    });
  }

  #bringIn(files) {
    this.file.value = "";
    const [file] = files;
    if (!file) return undefined;
    return this.attempt(async () => {
      const ending = file.name.slice(file.name.lastIndexOf(".")).toLowerCase();
      if (files.length > 1) throw new Error("One draft at a time, please.");
      if (!DRAFTS.includes(ending)) throw new Error(
        `${file.name} cannot be read. A draft is one of ${DRAFTS.join(" ")}.`,
      );
      const largest = ending === ".json" ? LARGEST_STORY : LARGEST;
      if (file.size > largest) throw new Error(
        `${file.name} has ${number(Math.ceil(file.size / 1e6))} MB, and such a file has at most ${largest / 1e6}. Save it in parts.`,
      );
      toast(`Reading ${file.name}…`);
      const made = await upload(["import"], { name: file.name }, file);
      location.assign(page(made.id));
    });
  }

  #acceptDrops() {
    const isFile = (event) => event.dataTransfer?.types.includes("Files");
    const over = (isOver) => (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      this.element.classList.toggle("ws-drop", isOver);
    };
    this.element.addEventListener("dragover", over(true));
    this.element.addEventListener("dragleave", over(false));
    this.element.addEventListener("drop", (event) => {
      over(false)(event);
      if (isFile(event)) this.#bringIn([...event.dataTransfer.files]);
    });
  }
}
