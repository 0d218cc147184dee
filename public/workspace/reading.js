// How prose is set: on sepia or on the theme's own paper, and how large. Kept by the browser.

const SCALES = [0.85, 0.925, 1, 1.1, 1.2, 1.35, 1.5];
const page = document.documentElement;

/** Whether the paper is sepia. */
export const isSepia = () => page.dataset.reading === "sepia";

/** Take the sepia paper, or the theme's own. */
export function setSepia(isOn) {
  if (isOn) page.dataset.reading = "sepia";
  else delete page.dataset.reading;
  keep("storygen.reading", isOn ? "sepia" : "");
}

/** Larger (1) or smaller (-1) letters; whether that was possible. */
export function resize(step) {
  const now = SCALES.indexOf(Number(kept("storygen.size")) || 1);
  const next = SCALES[now + step];
  if (!next) return false;
  page.style.setProperty("--prose-scale", next);
  keep("storygen.size", next);
  return true;
}

/** As it was the last time. */
export function restore() {
  setSepia(kept("storygen.reading") === "sepia");
  const size = Number(kept("storygen.size"));
  if (SCALES.includes(size)) page.style.setProperty("--prose-scale", size);
}

/** What the browser keeps under a name, "" where it keeps nothing. */
export function kept(name) {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return ""; // a browser that is told to keep nothing
  }
}

/** Have the browser keep something. */
export function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // it holds until the page is left
  }
}
