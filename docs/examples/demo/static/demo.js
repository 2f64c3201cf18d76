// The page: what its parts have to do with each other.

import { Channel } from "./channel.js";
import { Cursors } from "./cursors.js";
import { Latency } from "./latency.js";
import { Raw } from "./raw.js";
import { explain, post, postLast, setClock, visitor } from "./visitor.js";
import { Windows } from "./windows.js";

const MISSED = 5;
const LONG = 60000;
const LIGHTS = {
  connecting: "Connecting",
  open: "Connected",
  away: "Reconnecting",
  closed: "Paused while hidden",
};

const element = (id) => document.getElementById(id);
const logged = new Channel("sse");
const live = new Channel("live");
const channels = [logged, live];
const cursors = new Cursors(element("field"));
const windows = new Windows(element("tabs"));
const latency = new Latency();
const raw = new Raw(element("raw"), element("raw-text"));

function showLight() {
  const states = channels.map(({ state }) => state);
  const state = ["closed", "away", "connecting"].find((one) => states.includes(one)) ?? "open";
  const light = element("light");
  if (light.dataset.state === state) return;
  light.dataset.state = state;
  light.textContent = LIGHTS[state];
}

for (const channel of channels) {
  channel.addEventListener("state", showLight);
  channel.addEventListener("received", ({ detail: { type, data, latency: took } }) => {
    if (took !== null) latency.add(took);
    if (type === "cursor") cursors.move(data);
    if (type === "leave") cursors.remove(data.tab);
    if (type === "sse.join" || type === "sse.leave") windows.change(type, data.client);
  });
}

// A hidden tab needs no streams: a browser has but six connections for all its tabs.
async function wake() {
  try {
    await setClock();
  } catch {
    // Then the clocks are taken to agree.
  }
  if (!document.hidden) for (const channel of channels) channel.open();
}

live.addEventListener("state", () => {
  if (live.state !== "open") return;
  cursors.announce();
  windows.load().catch(() => {}); // the next connection tries again
});

function sleep() {
  for (const channel of channels) channel.close();
  raw.stop();
  cursors.clear();
  postLast("leave");
}

document.addEventListener("visibilitychange", () => (document.hidden ? sleep() : wake()));
window.addEventListener("pagehide", sleep);
window.addEventListener("pageshow", ({ persisted }) => persisted && wake());
if (!document.hidden) wake();

const form = element("publish");

async function send(path, fields, done, timeout) {
  const began = performance.now();
  const said = element("said");
  try {
    await post(path, { channel: form.elements.channel.value, ...fields }, timeout);
    said.textContent = `${done} in ${Math.round(performance.now() - began)} ms.`;
  } catch (error) {
    said.textContent = explain(error);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send("notes", { text: form.elements.text.value }, "Published");
});
let bursts = 0;
element("burst").addEventListener("click", () => {
  bursts += 1;
  send("burst", { burst: `${visitor.tab}-${bursts}` }, "1,000 published", LONG);
});

/** Lose the connection, miss some events, and count which of them come after all. */
async function drop(story) {
  const text = (number) => `Sent while you were away, ${number} of ${MISSED}`;
  const missed = new Set(Array.from({ length: MISSED }, (_, index) => text(index + 1)));
  const found = new Map(channels.map((channel) => [channel, 0]));
  const counts = channels.map((channel) => {
    const count = ({ detail: { type, data } }) => {
      if (type === "note" && data.from.tab === visitor.tab && missed.has(data.text)) {
        found.set(channel, found.get(channel) + 1);
      }
    };
    channel.addEventListener("received", count);
    return () => channel.removeEventListener("received", count);
  });
  story.textContent = "Dropping the connection.";
  const gone = Promise.all(channels.map((channel) => channel.until("away")));
  await post("drop");
  await gone;
  const [began, position] = [performance.now(), logged.lastId];
  for (const words of missed) {
    for (const { name } of channels) await post("notes", { channel: name, text: words });
  }
  story.textContent = `Away, and ${MISSED} events are sent to each channel. Waiting for the browser.`;
  await Promise.all(channels.map((channel) => channel.until("open")));
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  for (let tries = 0; tries < 20 && found.get(logged) < MISSED; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  for (const stop of counts) stop();
  const lost = MISSED - found.get(live);
  live.add(`${lost} events while you were away`, "missed");
  story.textContent = `Back after ${seconds} s.\n`
    + `With history: ${found.get(logged)} of ${MISSED} recovered.\n`
    + `Without history: ${lost} of ${MISSED} missed.\n`
    + `Last-Event-ID: ${position}`;
}

let isDropping = false;
element("drop").addEventListener("click", async () => {
  if (isDropping) return;
  isDropping = true;
  const story = element("story");
  try {
    await drop(story);
  } catch (error) {
    story.textContent = explain(error);
  } finally {
    isDropping = false;
  }
});
