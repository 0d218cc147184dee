// A story as continuous text, exact to the last space, in blocks the browser may leave unpainted.

import { position } from "./counting.js";
import { el } from "./dom.js";

const BLOCK = 3000; // characters, after which a block ends at the next line's end
const LONG = 40; // blocks from which on those out of sight stay unpainted, and have no innerText
const LINE = 68; // characters, to guess the height of a block that was not painted yet

/**
 * The text of passages in `root`. A block ends behind a line break, where the break that the block
 * itself makes stands for the one in the text; so the text is the same as if it were one block. A
 * passage is one element, or several where it goes on in another block.
 */
export class Prose {
  // {node, length, last: its last character, starts: where in it passages begin}
  #blocks = [];
  #laid = 0; // passages that are shown

  constructor(root) {
    this.root = root;
  }

  /** Show `passages`, of which those before `from` are as they were. */
  show(passages, from = 0) {
    this.#cut(Math.min(from, this.#laid));
    const unchanged = this.#blocks.length - 1;
    const fresh = document.createDocumentFragment();
    for (let k = this.#laid; k < passages.length; k++) this.#lay(passages[k], k, fresh);
    this.#laid = passages.length;
    for (const block of this.#blocks.slice(Math.max(unchanged, 0))) this.#guess(block);
    this.root.append(fresh);
    this.root.classList.toggle("ws-long", this.#blocks.length > LONG);
  }

  /** Show what a passage has become that only grew at its end; it must be the last one. */
  grow(passage) {
    const parts = this.parts(passage.id);
    const shown = parts.reduce((sum, part) => sum + part.textContent.length, 0);
    const more = passage.text.slice(shown);
    if (!parts.length || !more) return;
    const last = parts.at(-1).lastChild;
    const inside = last?.nodeType === Node.ELEMENT_NODE ? last : parts.at(-1);
    if (inside.lastChild?.nodeType === Node.TEXT_NODE) inside.lastChild.appendData(more);
    else inside.append(more);
  }

  /** The elements of a passage. */
  parts(id) {
    return [...this.root.querySelectorAll(`[data-passage="${CSS.escape(id)}"]`)];
  }

  /** The range from one character of a passage to another, as Python counts them. */
  range(passage, start, end) {
    const range = document.createRange();
    const [from, to] = [position(passage.text, start), position(passage.text, end)];
    let before = 0;
    for (const part of this.parts(passage.id)) {
      const walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const { length } = walker.currentNode;
        if (from >= before && from < before + length) range.setStart(
          walker.currentNode,
          from - before,
        );
        if (to > before && to <= before + length) range.setEnd(walker.currentNode, to - before);
        before += length;
      }
    }
    return range;
  }

  /** Take away the passages from an index on. */
  #cut(index) {
    if (index === this.#laid) return;
    const at = this.#blocks.findIndex(
      (block) => block.starts.some((start) => start.index === index),
    );
    const [block, ...rest] = this.#blocks.splice(at);
    for (const { node } of rest) node.remove();
    const n = block.starts.findIndex((start) => start.index === index);
    const { nodes, length, last } = block.starts[n];
    if (nodes === 0) block.node.remove();
    else this.#blocks.push(Object.assign(block, { length, last }));
    block.starts.length = n;
    while (block.node.childNodes.length > nodes) block.node.lastChild.remove();
    this.#laid = index;
  }

  #lay(passage, index, fresh) {
    let part = null;
    let isStart = true;
    const put = (text, isModels, isJoint) => {
      while (text) {
        const block = this.#room(isStart ? index : null, fresh);
        isStart = false;
        const room = Math.max(BLOCK - block.length, 0);
        const cut = text.indexOf("\n", room) + 1 || text.length;
        const piece = text.slice(0, cut);
        text = text.slice(cut);
        block.length += piece.length;
        block.last = piece.at(-1);
        if (isJoint) block.node.append(piece);
        else {
          if (part?.parentNode !== block.node) block.node.append((part = partOf(passage)));
          part.append(isModels ? el("span", { class: "ws-models" }, piece) : piece);
        }
      }
    };
    put(passage.joint, false, true);
    for (const [text, isModels] of strands(passage)) put(text, isModels, false);
    if (part) return;
    this.#room(isStart ? index : null, fresh).node.append(partOf(passage)); // empty as yet
  }

  /** The block that takes the next piece, a new one where the last is full; `index` is that of the
   * passage which begins with the piece, or null. */
  #room(index, fresh) {
    let block = this.#blocks.at(-1);
    if (!block || (block.length >= BLOCK && block.last === "\n")) {
      block = { node: el("div", { class: "ws-block" }), length: 0, last: "", starts: [] };
      this.#blocks.push(block);
      fresh.append(block.node);
    }
    const { length, last } = block;
    if (index !== null) block.starts.push({
      index,
      nodes: block.node.childNodes.length,
      length,
      last,
    });
    return block;
  }

  #guess(block) {
    const lines = Math.ceil(block.length / LINE) * 1.15;
    block.node.style.containIntrinsicBlockSize = `auto ${lines * 1.7}em`;
  }
}

const partOf = (passage) =>
  el("span", { class: `ws-passage ws-by-${passage.role}`, "data-passage": passage.id });

/** A passage's text in pieces, each with whether a model wrote it. */
function strands(passage) {
  if (passage.role !== "model") return [[passage.text, false]];
  const pieces = [];
  let done = 0;
  for (const [start, end] of passage.edited ?? []) {
    const [from, to] = [position(passage.text, start), position(passage.text, end)];
    pieces.push([passage.text.slice(done, from), true], [passage.text.slice(from, to), false]);
    done = to;
  }
  return [...pieces, [passage.text.slice(done), true]].filter(([text]) => text);
}
