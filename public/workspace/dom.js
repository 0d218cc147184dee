// Elements of the page. Text becomes text nodes: nothing here makes markup out of a string.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `class`, `data-*`, `aria-*` and `role` become attributes, the rest properties. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "style") for (const [key, style] of Object.entries(value)) setStyle(node, key, style);
    else if (/^(class|role|for|colspan|tabindex|list|download|data-.*|aria-.*)$/.test(name))
      node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const setStyle = (node, key, value) =>
  key.startsWith("--") ? node.style.setProperty(key, value) : (node.style[key] = value);

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const PATHS = {
  book: "M12 6C9.6 4.6 6.6 4.2 3.5 4.6v13.6c3.1-.4 6.1 0 8.5 1.4 2.4-1.4 5.4-1.8 8.5-1.4V4.6C17.4 4.2 14.4 4.6 12 6zM12 6v13.6",
  close: "M6 6l12 12M18 6L6 18",
  help: "M9.3 9.2a2.8 2.8 0 1 1 4.2 2.4c-1 .6-1.5 1.2-1.5 2.2M12 17.2v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  star: "M12 4l2.4 5.2 5.6.7-4.2 3.9 1.1 5.6L12 16.6 7.1 19.4l1.1-5.6L4 9.9l5.6-.7z",
  up: "M7 11v9H3.5v-9zM7 11l4-7.5c1.6 0 2.4 1.3 2.1 2.7L12.5 9.5H19c1 0 1.7.9 1.5 1.9l-1.3 7c-.2.9-.9 1.6-1.9 1.6H7",
  down: "M17 13V4h3.5v9zM17 13l-4 7.5c-1.6 0-2.4-1.3-2.1-2.7l.6-3.3H5c-1 0-1.7-.9-1.5-1.9l1.3-7C5 4.7 5.7 4 6.7 4H17",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  link: "M10 14a4 4 0 0 0 5.7 0l3.2-3.2a4 4 0 0 0-5.7-5.7L12 6.3M14 10a4 4 0 0 0-5.7 0l-3.2 3.2a4 4 0 0 0 5.7 5.7l1.2-1.2",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20",
  lamp: "M12 3v2M5.6 5.6L7 7M3 12h2M19 12h2M17 7l1.4-1.4M9 17h6M10 20h4M8.5 14.5a5 5 0 1 1 7 0c-.5.6-.5 1.3-.5 2.5H9c0-1.2 0-1.9-.5-2.5z",
  pencil: "M4 20l.9-4L15.5 5.4a1.5 1.5 0 0 1 2.1 0l1 1a1.5 1.5 0 0 1 0 2.1L8 19.1zM13.5 7.5l3 3",
  branch: "M7 4v16M7 14c6 0 10-2 10-7M14.5 9.5L17 7l2.5 2.5",
  sound: "M4 10v4h3.5l4.5 4V6L7.5 10zM15.5 9a4.5 4.5 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5.5M12 7.5v.1",
  again: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3M17.5 3v4h-4",
  tag: "M4 4h7.5l8.5 8.5-7.5 7.5L4 11.5zM8 8v.1",
  bin: "M5 7h14M10 4h4M7 7l.8 13h8.4L17 7M10.5 10.5v6M13.5 10.5v6",
};

/** A small picture drawn with a pen; decoration, so its button needs a label of its own. */
export function icon(name) {
  const path = svg("path", { d: PATHS[name] });
  return svg("svg", { viewBox: "0 0 24 24", class: "ws-icon", "aria-hidden": "true" }, path);
}

/** A button; with a picture its label becomes the title and what a screen reader says, and `text`
 * may stand beside the picture. */
export function button(label, onclick, { picture, text, title = "", kind = "", ...more } = {}) {
  const shown = picture ? [icon(picture), text] : [label];
  return el(
    "button",
    {
      type: "button",
      class: `ws-button ${picture ? "ws-picture" : ""} ${text ? "ws-worded" : ""} ${kind}`.trim(),
      title: title || (picture ? label : ""),
      "aria-label": picture ? label : undefined,
      onclick,
      ...more,
    },
    shown,
  );
}

/** A tick box with its label. */
export function tick(label, isOn, onchange, title = "") {
  const box = el("input", {
    type: "checkbox",
    checked: isOn,
    onchange: () => onchange(box.checked),
  });
  return el("label", { class: "ws-tick", title }, box, label);
}

/** What calls `work` once things have been quiet for a while; `flush` does so at once if due. */
export function debounced(work, milliseconds) {
  let timer = null;
  const flush = () => {
    if (timer === null) return undefined;
    clearTimeout(timer);
    timer = null;
    return work();
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(flush, milliseconds);
  };
  return Object.assign(later, { flush, isDue: () => timer !== null });
}

/** What calls `work` at most once a frame, also where frames are withheld from a hidden page. */
export function eachFrame(work) {
  let isDue = false;
  const run = () => {
    if (!isDue) return;
    isDue = false;
    work();
  };
  return () => {
    if (isDue) return;
    isDue = true;
    if (document.hidden) setTimeout(run, 100);
    else requestAnimationFrame(run);
  };
}

/** Whether keys typed here are text. */
export const isTyping = (node) =>
  Boolean(
    node?.closest?.(
      "textarea, select, [contenteditable=true], input:not([type=checkbox], [type=range])"
    ),
  );
