// Keys for what one does all the time. Nothing is taken from a text field but what has Ctrl or Alt.

import { isTyping } from "./dom.js";
import { isWriting, send } from "./messages.js";
import { writeVersions } from "./versions.js";

export const SHORTCUTS = [
  ["Ctrl+Enter", "Continue, when nothing is typed"],
  ["Alt+R", "Retry"],
  ["Alt+V", "Three versions to choose from"],
  ["Alt+Z", "Undo"],
  ["Alt+Shift+Z", "Redo"],
  ["Alt+M", "Open or close this panel"],
  ["Esc", "Stop while it writes; else close"],
  ["1 – 9", "Take a word, under Words"],
];

/** Listen for them; `panel` opens, closes, and gets the keys of its tabs. */
export function listen(panel) {
  // The composer takes Enter for itself, with Ctrl too, so this has to come before it.
  const composing = (event) => {
    if (event.target.id === "chat-input" && event.key === "Enter") heard(event);
  };
  const heard = (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    if (pressed(event, panel)) {
      event.preventDefault();
      event.stopPropagation();
    }
  };
  document.addEventListener("keydown", composing, true);
  document.addEventListener("keydown", heard);
}

function pressed(event, panel) {
  const isCommand = event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && isCommand && !event.altKey) return isComposerEmpty(event) && does("continue");
  if (event.altKey && !isCommand) return withAlt(event, panel);
  if (event.key === "Escape") return escape(event, panel);
  if (isTyping(event.target) || isCommand || event.altKey) return false;
  return panel.key(event);
}

function withAlt(event, panel) {
  // With Alt some keyboards type another sign; then the place of the key counts.
  const key = /^[a-z]$/i.test(event.key) ? event.key : event.code.replace("Key", "");
  const letter = key.toLowerCase();
  if (letter === "z") return does(event.shiftKey ? "redo" : "undo");
  if (event.shiftKey) return false;
  if (letter === "r") return does("retry");
  if (letter === "m") return panel.toggle() || true;
  if (letter === "v") {
    writeVersions();
    return true;
  }
  return false;
}

function does(verb) {
  send(verb);
  return true;
}

/** The composer is the one text field where Esc stops: it has nothing else to do there. */
function escape(event, panel) {
  const isComposer = event.target.id === "chat-input";
  if (isTyping(event.target) && !isComposer) {
    event.target.blur();
    return true;
  }
  if (document.querySelector("[role=dialog], [role=listbox], [role=menu], #confirm-sidebar")) return false;
  if (isWriting()) return does("stop");
  return !isComposer && panel.escape();
}

function isComposerEmpty(event) {
  const composer = document.getElementById("chat-input");
  const isElsewhere = isTyping(event.target) && event.target !== composer;
  return !isElsewhere && !composer?.value.trim() && !isWriting();
}
