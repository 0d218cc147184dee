// Several versions of the next passage side by side, as they are written.

import { counted, position, words } from "./counting.js";
import { button, eachFrame, el } from "./dom.js";
import { on, send } from "./messages.js";
import { openSheet } from "./sheet.js";

let open = null; // the sheet that is open, if one is
let ignored = new Set(); // passages whose sheet was closed while they were written

/** Ask for versions and wait for them. */
export function writeVersions(n = 3) {
  send("versions", { n });
}

on("growing", (growth) => {
  if ((growth.version ?? null) === null || ignored.has(growth.id)) return;
  if (!open || (open.parent !== growth.parent && !open.has(growth.id))) {
    open?.close();
    open = new Versions(growth.parent);
  }
  open.grow(growth);
});

/** The sheet with its columns. */
class Versions {
  #columns = new Map();

  constructor(parent) {
    this.parent = parent;
    this.row = el("div", { class: "ws-columns" });
    this.stop = button("Stop", () => send("stop"), { title: "Stop writing" });
    const content = el("div", { class: "ws-sheet-body" }, this.row);
    const { sheet, close } = openSheet("Which way?", content, {
      buttons: [this.stop],
      left: () => this.#leave(),
    });
    this.close = close;
    this.draw = eachFrame(() => this.#draw());
    sheet.classList.add("ws-versions");
    sheet.addEventListener("keydown", (event) => this.#key(event));
  }

  has(id) {
    return this.#columns.has(id);
  }

  grow({ id, from, text, version, done }) {
    if (!this.#columns.has(id)) this.#add(id, version);
    const column = this.#columns.get(id);
    column.text = column.text.slice(0, position(column.text, from)) + text;
    if (done) column.isDone = true;
    this.draw();
  }

  #add(id, version) {
    const take = button(`Take this one`, () => this.#pick(id), {
      kind: "ws-strong",
      disabled: true,
      title: `Take this one (${version + 1})`,
    });
    const count = el("span", { class: "ws-faint" });
    const prose = el("div", { class: "ws-prose", tabindex: 0 });
    const heading = el("h3", {}, `Version ${version + 1}`);
    const section = el(
      "section",
      { "aria-label": `Version ${version + 1}` },
      heading,
      prose,
      el("div", { class: "ws-row" }, take, count),
    );
    section.style.order = version;
    this.row.append(section);
    this.#columns.set(id, { version, text: "", isDone: false, take, count, prose });
  }

  #draw() {
    for (const { text, isDone, take, count, prose } of this.#columns.values()) {
      const isAtEnd = prose.scrollHeight - prose.scrollTop - prose.clientHeight < 40;
      prose.textContent = text.replace(/^ +/, ""); // the space that goes on in a paragraph
      if (isAtEnd) prose.scrollTop = prose.scrollHeight;
      count.textContent = counted(words(text), "word") + (isDone ? "" : ", writing…");
      take.disabled = !isDone || !text;
    }
    this.stop.hidden = [...this.#columns.values()].every((column) => column.isDone);
    if (this.stop.hidden && document.activeElement === document.body) this.row.closest("dialog").focus();
  }

  #key(event) {
    const chosen = [...this.#columns].find(
      ([, column]) => String(column.version + 1) === event.key,
    );
    if (!chosen?.[1].isDone || !chosen[1].text) return;
    event.preventDefault(); // or the field that has the focus again gets the digit
    this.#pick(chosen[0]);
  }

  #pick(id) {
    send("pick", { id });
    this.close();
  }

  #leave() {
    ignored = new Set(this.#columns.keys());
    if (open === this) open = null;
  }
}
