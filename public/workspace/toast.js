// Short notices at the foot of the page, with one thing to do about them.

import { button, el } from "./dom.js";

const STAY = 8000; // milliseconds; one has to find the button

let region = null;

/** Say something for a while; `action` is [label, what to do]. */
export function toast(sentence, action = null) {
  if (!region) {
    region = el("div", { class: "ws-toasts", role: "status", "aria-live": "polite" });
    document.body.append(region);
  }
  const close = () => note.remove();
  const act = () => {
    close();
    action[1]();
  };
  const note = el(
    "div",
    { class: "ws-toast" },
    el("span", {}, sentence),
    action && button(action[0], act, { kind: "ws-strong" }),
    button("Dismiss", close, { picture: "close" }),
  );
  region.replaceChildren(...[...region.children].slice(-2), note);
  const leave = () => (note.matches(":hover, :focus-within") ? setTimeout(leave, STAY) : close());
  setTimeout(leave, STAY);
}
