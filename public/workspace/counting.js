// Words and reading time, as a writer counts them: whatever stands between spaces.

const WORDS_A_MINUTE = 250;

/** The words of one text. */
export function words(text) {
  let count = 0;
  let isInside = false;
  for (let i = 0; i < text.length; i++) {
    const isSpace = isBlank(text.charCodeAt(i));
    if (!isSpace && !isInside) count++;
    isInside = !isSpace;
  }
  return count;
}

const isBlank = (code) =>
  code === 32 || (code >= 9 && code <= 13) || (code > 127 && /\s/.test(String.fromCharCode(code)));

/** The words of passages that follow each other: one that is split between two counts once. */
export function wordsOf(passages) {
  let count = 0;
  let last = " ";
  for (const passage of passages) {
    const part = passage.joint + passage.text;
    if (!part) continue;
    passage.words ??= words(passage.text);
    count += passage.words;
    if (/\S/.test(last) && /\S/.test(part[0])) count--;
    last = part[part.length - 1];
  }
  return count;
}

/** A number with its thousands apart. */
export const number = (value) => value.toLocaleString("en-US");

/** "1 word", "2,000 words". */
export const counted = (value, thing) => `${number(value)} ${thing}${value === 1 ? "" : "s"}`;

/** How long it takes to read so many words. */
export function readingTime(count) {
  const minutes = count / WORDS_A_MINUTE;
  if (count === 0) return "0 s";
  if (minutes < 1) return `${Math.max(1, Math.round(minutes * 60))} s`;
  if (minutes < 60) return `${Math.round(minutes)} min`;
  return `${Math.floor(minutes / 60)} h ${Math.round(minutes % 60)} min`;
}

/** A position that counts characters as Python does, as one that counts as JavaScript does. */
export function position(text, characters) {
  if (!/[\ud800-\udbff]/.test(text)) return characters;
  let i = 0;
  for (let n = 0; n < characters && i < text.length; n++) i += text.codePointAt(i) > 0xffff ? 2 : 1;
  return i;
}

/** The length of a text as Python counts it. */
export function lengthOf(text) {
  let length = text.length;
  for (const _ of text.matchAll(/[\ud800-\udbff][\udc00-\udfff]/g)) length--;
  return length;
}
