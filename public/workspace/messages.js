// Window messages: what the page asks of its window's session, and what that tells the page.

/** Ask for something to be done; what came of it arrives as a message. */
export function send(verb, more = {}) {
  window.postMessage({ storygen: { do: verb, ...more } }, location.origin);
}

/** Whether a passage is being written. */
export const isWriting = () => document.getElementById("stop-button") !== null;

/** Call `handler` for each message of a kind: story, changed, growing, settings, again. */
export function on(kind, handler) {
  window.addEventListener("message", (event) => {
    if (event.origin !== location.origin) return;
    const told = event.data?.storygen;
    if (told && !told.do && told[kind] !== undefined) handler(told[kind]);
  });
}
