// The tab with the tree: every branch of the story, and where one is.

import { get, latest, post } from "./api.js";
import { compare } from "./compare.js";
import { counted } from "./counting.js";
import { button, debounced, el } from "./dom.js";
import { send } from "./messages.js";
import { story } from "./story.js";
import { toast } from "./toast.js";
import { View } from "./view.js";

/** The runs of passages, indented by how far they lie from the main line. */
export class Branches extends View {
  name = "branches";
  #runs = [];
  #chosen = []; // ids of at most two runs, to be compared
  #ask = latest((id, signal) => get(["stories", id, "tree"], {}, signal));

  constructor() {
    super("Branches");
    const stale = debounced(() => this.stale(), 150);
    for (const type of ["opened", "elsewhere", "passages"]) story.addEventListener(type, stale);
    this.tree = el("div", { class: "ws-tree", role: "tree", "aria-label": "Branches" });
    this.tree.addEventListener("click", (event) => this.#click(event));
    this.tree.addEventListener("change", (event) => this.#choose(event.target));
    this.tree.addEventListener("keydown", (event) => this.#key(event));
    this.foot = el("div", { class: "ws-tools ws-foot" });
    this.element.append(this.foot);
  }

  async load() {
    const none = this.noStory();
    if (none) {
      this.foot.replaceChildren();
      return this.body.replaceChildren(none);
    }
    const answer = await this.#ask(story.id);
    if (!answer) return undefined;
    this.#runs = answer.runs;
    this.#chosen = this.#chosen.filter((id) => answer.runs.some((run) => run.id === id));
    this.#draw(answer.deleted ?? []);
    return undefined;
  }

  #draw(deleted) {
    const focused = this.tree.contains(
      document.activeElement,
    ) && document.activeElement.closest("[data-run]")?.dataset.run;
    this.tree.replaceChildren(...drawn(laidOut(this.#runs)).map((row) => this.#row(row)));
    const here = this.tree.querySelector("[aria-current]") ?? this.tree.firstElementChild;
    here?.setAttribute("tabindex", "0");
    const empty = this.#runs.length ? [] : [
      el("p", { class: "ws-empty" }, "Each retry, edit and new direction becomes a branch here."),
    ];
    this.body.replaceChildren(...empty, this.tree, ...this.#recovery(deleted));
    this.#drawFoot();
    if (focused) this.tree.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  }

  #row({ run, depth, lines, dot }) {
    const marks = `${run.active ? "ws-active" : ""} ${run.head ? "ws-here" : ""}`;
    const opening = run.name || run.opening.trim() || "(nothing yet)";
    const label = el(
      "span",
      { class: "ws-opening" },
      run.name ? el("b", {}, run.name) : el(
        "span",
        { class: run.role === "model" ? "ws-models" : "" },
        opening,
      ),
    );
    const facts = [
      counted(run.words, "word"),
      run.count > 1 ? counted(run.count, "passage") : null,
      ratingOf(run),
    ];
    const about = el("span", { class: "ws-faint" }, facts.filter(Boolean).join(" · "));
    const here = run.head ? [el("span", { class: "ws-pill" }, "You are here")] : [];
    const box = el("input", {
      type: "checkbox",
      checked: this.#chosen.includes(run.id),
      title: "Choose two to compare",
      "aria-label": `Compare: ${opening}`,
      tabindex: -1,
    });
    return el(
      "div",
      {
        class: `ws-run ${marks}`,
        role: "treeitem",
        tabindex: -1,
        "data-run": run.id,
        "aria-level": depth + 1,
        "aria-current": run.head ? "true" : undefined,
        title: run.opening,
      },
      ...lines.map((line) => el("span", { class: `ws-line ${line}`, "aria-hidden": "true" })),
      el("span", { class: `ws-dot ${dot}`, "aria-hidden": "true" }),
      el(
        "span",
        { class: "ws-run-text" },
        label,
        el("span", { class: "ws-row ws-tight" }, ...here, about),
      ),
      el(
        "span",
        { class: "ws-run-tools" },
        button("Favourite", null, {
          picture: "star",
          "data-do": "favourite",
          "aria-pressed": String(run.favourite),
          tabindex: -1,
        }),
        button("Name", null, { picture: "tag", "data-do": "name", tabindex: -1 }),
        button("Delete this branch", null, { picture: "bin", "data-do": "delete", tabindex: -1 }),
        box,
      ),
    );
  }

  #run(node) {
    const id = node.closest("[data-run]")?.dataset.run;
    return this.#runs.find((run) => run.id === id);
  }

  #click(event) {
    const run = this.#run(event.target);
    const verb = event.target.closest("[data-do]")?.dataset.do;
    if (!run || event.target.closest("input")) return;
    if (verb === "favourite") this.#store(run, run.id, { favourite: !run.favourite });
    else if (verb === "name") this.#askName(run);
    else if (verb === "delete") this.#delete(run);
    else send("go", { id: run.id });
  }

  #key(event) {
    const rows = [...this.tree.children];
    const row = event.target.closest("[data-run]");
    if (!row || event.target.closest("input[type=text]")) return;
    const to = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const inside = [row, ...row.querySelectorAll("button, input")];
    const aside = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (to) this.#focus(rows[rows.indexOf(row) + to]);
    else if (aside) inside[inside.indexOf(document.activeElement) + aside]?.focus();
    else if (event.key === "Enter" && event.target === row) send("go", { id: row.dataset.run });
    else if (event.key === "Delete") this.#delete(this.#run(row));
    else return;
    event.preventDefault();
  }

  #focus(row) {
    if (!row) return;
    this.tree.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    row.setAttribute("tabindex", "0");
    row.focus();
  }

  #store(run, passage, values) {
    return this.attempt(async () => {
      await post(["stories", story.id, "passages", passage], values);
      story.refresh(true);
      await this.load();
    });
  }

  async #delete(run) {
    if (run.active) send("go", { id: run.parent }); // nobody stands on what is put away
    await this.#store(run, run.first, { deleted: true });
    if (!this.trouble.hidden) return;
    toast("The branch is deleted.", [
      "Undo",
      () => this.#store(run, run.first, { deleted: false }),
    ]);
  }

  #askName(run) {
    const row = this.tree.querySelector(`[data-run="${CSS.escape(run.id)}"] .ws-run-text`);
    const field = el("input", {
      type: "text",
      value: run.name,
      maxLength: 80,
      "aria-label": "Name of this branch",
      placeholder: "Name of this branch",
    });
    const done = () => this.#store(run, run.id, { name: field.value.trim() });
    field.addEventListener("click", (event) => event.stopPropagation());
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") done();
      else if (event.key === "Escape") this.load();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    row.replaceChildren(field);
    field.focus();
  }

  #choose(box) {
    const { id } = this.#run(box);
    this.#chosen = box.checked ? [...this.#chosen, id].slice(-2) : this.#chosen.filter(
      (each) => each !== id,
    );
    for (const other of this.tree.querySelectorAll("input[type=checkbox]"))
      other.checked = this.#chosen.includes(this.#run(other).id);
    this.#drawFoot();
  }

  #drawFoot() {
    const two = this.#chosen.length === 2;
    const run = () => this.attempt(
      () => compare(...this.#chosen.map((id) => this.#runs.find((r) => r.id === id))),
    );
    const hint = ["Tick two branches to compare them", "Choose one more", ""][this.#chosen.length];
    this.foot.replaceChildren(
      button("Compare", run, { disabled: !two, kind: "ws-strong" }),
      el("span", { class: "ws-faint" }, hint),
    );
  }

  #recovery(deleted) {
    if (!deleted.length) return [];
    const recover = (id) => this.#store(null, id, { deleted: false });
    const rows = deleted.map((branch) =>
      el(
        "li",
        {},
        el("span", { class: "ws-opening" }, branch.opening),
        el("span", { class: "ws-faint" }, counted(branch.words, "word")),
        button("Recover", () => recover(branch.id)),
      ),
    );
    return [el("h3", {}, "Deleted branches"), el("ul", { class: "ws-deleted" }, rows)];
  }
}

const ratingOf = (run) => ({ 1: "good", [-1]: "not good" })[run.rating] ?? null;

/** The runs as they are listed, each with its depth. What goes on from a run stays at its depth;
 * what else was tried there stands between, one step aside. */
function laidOut(runs) {
  const children = Map.groupBy ? Map.groupBy(runs, (run) => run.parent) : grouped(runs);
  const rows = [];
  const waiting = beginnings(children.get(null) ?? [], 0).reverse();
  while (waiting.length) {
    const row = waiting.pop();
    rows.push(row);
    waiting.push(...beginnings(children.get(row.run.id) ?? [], row.depth).reverse());
  }
  return rows;
}

/** The rows with the lines that pass them by: a line in a column goes on while a later row of that
 * column is reached before one further left. */
function drawn(rows) {
  const ahead = []; // by column: null, or whether what comes next in it is on the active branch
  return rows
    .reverse()
    .map(({ run, depth, isSide }) => {
      ahead.length = Math.min(ahead.length, depth + 1);
      const kind = (column) => (
        ahead[column] === undefined ? "" : ahead[column] ? "ws-on ws-lit" : "ws-on"
      );
      const lines = Array.from({ length: depth }, (_, column) => kind(column));
      const below = ahead[depth] === undefined ? "ws-last" : "";
      const dot = `${below} ${isSide ? "ws-side" : ""}`;
      ahead[depth] = isSide ? undefined : run.active;
      return { run, depth, lines, dot };
    })
    .reverse();
}

function beginnings(siblings, depth) {
  const main = siblings.find((run) => run.active) ?? siblings.at(-1);
  const rows = siblings.map(
    (run) => ({ run, depth: depth + Number(run !== main), isSide: run !== main }),
  );
  return rows.sort((a, b) => b.depth - a.depth);
}

function grouped(runs) {
  const groups = new Map();
  for (const run of runs) groups.set(run.parent, [...(groups.get(run.parent) ?? []), run]);
  return groups;
}
