// What this tab is called, the server's time, and requests to the server.

const NAMES = [
  "Avocet", "Bittern", "Bunting", "Curlew", "Dipper", "Dunlin", "Egret", "Finch", "Gannet",
  "Godwit", "Grebe", "Heron", "Hoopoe", "Ibis", "Jackdaw", "Kestrel", "Kite", "Lapwing",
  "Linnet", "Martin", "Nuthatch", "Osprey", "Petrel", "Pipit", "Plover", "Puffin", "Rook",
  "Sandpiper", "Shrike", "Siskin", "Stork", "Swift", "Tern", "Thrush", "Wagtail", "Wren",
];
const TIMEOUT = 5000;

const random = (limit) => Math.floor(Math.random() * limit);
const localTime = () => performance.timeOrigin + performance.now();
let offset = 0;

export const visitor = {
  tab: Array.from({ length: 16 }, () => random(16).toString(16)).join(""),
  name: NAMES[random(NAMES.length)],
  hue: random(360),
};

/** The server's time in milliseconds, as well as this page knows it. */
export const now = () => localTime() + offset;

/** Compare the clocks: the answer that came fastest tells most. */
export async function setClock() {
  let fastest = Infinity;
  for (let round = 0; round < 5; round += 1) {
    const before = localTime();
    const answer = await fetch("clock", { cache: "no-store" });
    const { now: there } = await answer.json();
    const after = localTime();
    if (after - before < fastest) {
      fastest = after - before;
      offset = there - (before + after) / 2;
    }
  }
  // A difference that is smaller than what can be measured is none.
  if (Math.abs(offset) < fastest / 2) offset = 0;
}

/** Send something to the server, which refuses what it does not understand. */
export async function post(path, fields = {}, timeout = TIMEOUT) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...visitor, ...fields }),
    keepalive: true,
    signal: AbortSignal.timeout(timeout),
  });
  if (response.ok) return;
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error ?? `The server has answered with ${response.status}.`);
}

/** Send something while the page is being closed. */
export function postLast(path) {
  navigator.sendBeacon(path, new Blob([JSON.stringify(visitor)], { type: "application/json" }));
}

/** Say in words why a request has failed. */
export function explain(error) {
  if (error.name === "TimeoutError") {
    return "No answer for 5 s. Over HTTP/1.1 a browser opens six connections to a server, and each "
      + "visible window uses two of them. Are there more than two windows?";
  }
  return error instanceof TypeError ? "The server can't be reached." : error.message;
}
