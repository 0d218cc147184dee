// A few things the page cannot do by itself.
"use strict";

// Copy: the exact words of a passage, from the browser, without asking the server.
document.addEventListener(
  "click",
  (event) => {
    const button = event.target.closest?.('button[id^="copy-"]');
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    const passage = document.getElementById("step-" + button.id.slice("copy-".length));
    const text = passage.querySelector('.message-content [role="article"]').textContent;
    navigator.clipboard.writeText(text).then(() => {
      const label = button.lastChild;
      label.textContent = "Copied";
      setTimeout(() => (label.textContent = "Copy"), 1500);
    });
  },
  true,
);

// The mark that keeps the indentation of a writer's first line (prose.py) is not part of the text.
document.addEventListener("copy", (event) => {
  const text = String(getSelection());
  if (!text.includes("\u2060") || event.target.closest?.("textarea, input")) return;
  event.clipboardData.setData("text/plain", text.replace(/\u2060(?=\s)/g, ""));
  event.preventDefault();
});

// Settings hold at once. Chainlit's ways to close the panel would show the old values again while
// the new ones hold, so each of them means Done.
const done = () => document.getElementById("confirm-sidebar");

const keepSettings = (event) => {
  event.preventDefault();
  event.stopPropagation();
  done().click();
};

document.addEventListener(
  "click",
  (event) => {
    const title = event.target.closest?.("#chat-settings-sidebar-title");
    const cross = event.target.closest?.('[role="dialog"] > button');
    if (done() && ((title && event.target.closest("button")) || cross)) keepSettings(event);
  },
  true,
);

document.addEventListener(
  "pointerdown",
  (event) => {
    const sheet = done()?.closest('[role="dialog"]');
    const isOutside = sheet && !sheet.contains(event.target) && !event.target.closest?.("[role=listbox]");
    if (isOutside) keepSettings(event);
  },
  true,
);

document.addEventListener(
  "keydown",
  (event) => {
    const isInList = document.querySelector("[role=listbox]");
    if (event.key === "Escape" && done() && !isInList) keepSettings(event);
  },
  true,
);

// Chainlit passes every window message on to the server, whoever sent it.
window.addEventListener("message", (event) => {
  if (event.origin !== location.origin) event.stopImmediatePropagation();
}, true);

// A new story takes its own address, so that a reload stays with it. Chainlit sees to that itself
// where the list of stories is on the page; on a phone it is not.
window.addEventListener("message", (event) => {
  const story = event.origin === location.origin && event.data?.storygen?.story;
  if (!story) return;
  setTimeout(() => {
    if (location.pathname === "/") history.replaceState(history.state, "", "/thread/" + story);
  }, 1500);
});

// The workspace beside the chat: modules of our own, which need the page to be there.
const here = document.currentScript.src;
for (const name of ["workspace", "manuscript", "tabs"]) {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL(`workspace/${name}.css`, here).href;
  document.head.append(link);
}
import(new URL("workspace/panel.js", here).href);
