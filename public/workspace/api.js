// The JSON routes. What a route refuses becomes an Error with its sentence.

const ROOT = new URL("../../", import.meta.url).pathname;

/** The address of a route, each part of its path encoded, with a query where there is one. */
export function address(parts, query = {}) {
  const path = ["api", ...parts].map(encodeURIComponent).join("/");
  const known = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const search = new URLSearchParams(known).toString();
  return ROOT + path + (search && `?${search}`);
}

/** The address of a story's page, and of a passage in it. */
export const page = (story, passage = "") => `${ROOT}thread/${story}${passage && `#${passage}`}`;

/** The id of the story whose page this is, or null on the first page. */
export function storyOfPage() {
  const match = location.pathname.match(/\/thread\/([0-9a-f-]{36})\/?$/);
  return match && match[1];
}

async function answer(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("storygen does not answer. Is it still running? Your stories are safe.");
  }
  const isJSON = response.headers.get("content-type")?.includes("json");
  const body = isJSON ? await response.json().catch(() => null) : null;
  if (response.ok && body !== null) return body;
  const sentence = body?.error ?? `storygen could not answer (${response.status}). Try again.`;
  throw Object.assign(new Error(sentence), { status: response.status });
}

/** What a GET route answers. */
export const get = (parts, query, signal) => answer(address(parts, query), { signal });

/** What a POST route answers to a JSON body; with `isLast` it arrives though the page is left. */
export function post(parts, body = {}, isLast = false) {
  const text = JSON.stringify(body);
  const headers = { "content-type": "application/json" };
  const keepalive = isLast && text.length < 20_000; // browsers keep at most 64 kB alive
  return answer(address(parts), { method: "POST", headers, body: text, keepalive });
}

/** Send a file as it is. */
export const upload = (parts, query, file) =>
  answer(address(parts, query), { method: "POST", body: file });

/** What asks anew each time and takes only the last answer: earlier ones become undefined. */
export function latest(ask) {
  let running = null;
  return async (...values) => {
    running?.abort();
    const mine = (running = new AbortController());
    try {
      const result = await ask(...values, mine.signal);
      return mine === running ? result : undefined;
    } catch (error) {
      if (error.name === "AbortError" || mine !== running) return undefined;
      throw error;
    }
  };
}
