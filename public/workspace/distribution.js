// The live picture of the next token: its likeliest values, what temperature makes of them and what
// top-k, top-p and min-p cut.

import { get, latest } from "./api.js";
import { debounced, el, svg } from "./dom.js";
import { send } from "./messages.js";
import { shaped } from "./sampling.js";
import { story } from "./story.js";

const SHOWN = 30;
const ROW = 17; // the height of a bar's row, in the picture's own units
const [WIDTH, LEFT, RIGHT] = [360, 96, 52];

const SLIDERS = [
  [
    "temperature",
    "Temperature",
    0,
    2,
    0.05,
    "How daring: low sharpens the likeliest, high levels them all",
  ],
  ["top_k", "Top-k", 0, 200, 1, "Only this many of the likeliest stay; 0: all"],
  ["top_p", "Top-p", 0.05, 1, 0.01, "The likeliest that together make up this share stay; 1: all"],
  [
    "min_p",
    "Min-p",
    0,
    1,
    0.01,
    "What is less likely than this share of the likeliest goes; 0: nothing",
  ],
];

/** Sliders and bars that follow them at each movement. */
export class Distribution {
  #tokens = [];
  #settings = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };
  #inputs = new Map();
  #changed = {};
  #post = debounced(() => {
    send("set", this.#changed);
    this.#changed = {};
  }, 300);
  #ask = latest((id, signal) => get(["stories", id, "next"], {}, signal));

  constructor(view) {
    this.view = view;
    this.numbers = el("p", { class: "ws-numbers", role: "status", "aria-live": "polite" });
    this.picture = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${SHOWN * ROW}`,
      class: "ws-bars",
      role: "img",
    });
    this.rows = Array.from({ length: SHOWN }, (_, i) => this.#row(i));
    this.element = el(
      "section",
      { "aria-label": "The next token" },
      el("h3", {}, "How the next word is chosen"),
      el("div", { class: "ws-sliders" }, SLIDERS.map((slider) => this.#slider(...slider))),
      this.numbers,
      this.picture,
      el(
        "p",
        { class: "ws-faint" },
        "Pieces of words, likeliest first. Outline: what the model thinks; filled: what is drawn from; grey: cut.",
      ),
    );
  }

  /** Fetch the distribution at the end of the story. */
  async load() {
    const answer = story.id && (await this.#ask(story.id));
    if (!answer) return;
    this.#tokens = answer.tokens;
    this.take(answer.settings);
  }

  /** Settings that came from elsewhere. */
  take(settings) {
    for (const [name, input] of this.#inputs) {
      const value = settings[name];
      if (typeof value !== "number" || name in this.#changed) continue;
      this.#settings[name] = value;
      input.max = Math.max(input.max, value);
      input.value = value;
      input.nextElementSibling.textContent = shown(value);
    }
    this.draw();
  }

  /** Send what the sliders say, if that is still to be done. */
  flush() {
    this.#post.flush();
  }

  #slider(name, label, min, max, step, title) {
    const value = el("output", {});
    const input = el("input", { type: "range", min, max, step, "aria-label": label });
    input.addEventListener("input", () => {
      this.#settings[name] = this.#changed[name] = input.valueAsNumber;
      value.textContent = shown(input.valueAsNumber);
      this.draw();
      this.#post();
    });
    this.#inputs.set(name, input);
    return el("label", { class: "ws-slider", title }, el("span", {}, label), input, value);
  }

  #row(i) {
    const y = i * ROW;
    const text = (attributes) => svg("text", { y: y + 12, ...attributes });
    const bar = (kind) => svg("rect", {
      x: LEFT,
      y: y + 2,
      height: ROW - 5,
      width: 0,
      rx: 2,
      class: kind,
    });
    const row = {
      name: text({ x: LEFT - 6, "text-anchor": "end" }),
      now: bar("ws-now"),
      was: bar("ws-was"),
      value: text({ x: WIDTH - 2, "text-anchor": "end" }),
    };
    row.group = svg("g", {}, row.name, row.now, row.was, row.value);
    this.picture.append(row.group);
    return row;
  }

  draw() {
    if (!this.#tokens.length) return;
    const { tokens, kept, mass } = shaped(this.#tokens, this.#settings);
    const widest = Math.max(...tokens.map((token) => Math.max(token.share, token.p)));
    const width = (p) => ((WIDTH - LEFT - RIGHT) * p) / widest;
    this.rows.forEach((row, i) => {
      const token = tokens[i];
      row.group.setAttribute("visibility", token ? "visible" : "hidden");
      if (!token) return;
      row.group.setAttribute("class", token.cut ? "ws-is-cut" : "");
      row.name.textContent = readable(token.text);
      row.now.setAttribute("width", width(token.cut ? token.q : token.share).toFixed(2));
      row.was.setAttribute("width", width(token.p).toFixed(2));
      row.value.textContent = token.cut ?? percent(token.share);
    });
    const share = Math.round(100 * mass);
    this.numbers.textContent = `Keeps ${kept} of ${tokens.length}, ${share} % of the mass.`;
    this.picture.setAttribute(
      "aria-label",
      `Likeliest: ${tokens.slice(0, 3).map((t) => `${readable(t.text)} ${percent(t.share)}`).join(", ")}`,
    );
  }
}

const shown = (value) => String(Math.round(value * 100) / 100);

/** A probability as a writer reads it. */
export const percent = (p) => (
  p >= 0.0995 ? `${Math.round(100 * p)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %"
);

/** A token one can see: line breaks and spaces have signs, a piece that goes on a word a hyphen. */
function readable(text) {
  const signs = { "\n": "↵", " ": "␣", "\t": "⇥" };
  if (text.trim() === "") return text.replaceAll(/[\n \t]/g, (blank) => signs[blank]) || "∅";
  const isPiece = /^\p{L}/u.test(text);
  return (isPiece ? "-" : "") + text.trim().replaceAll("\n", "↵");
}
