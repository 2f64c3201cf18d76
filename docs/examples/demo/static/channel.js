// One channel: its event stream, and the list of what has come.

import { now, visitor } from "./visitor.js";

const TYPES = [
  "message", "note", "greeting", "burst", "cursor", "leave", "sse.open", "sse.reset",
  "sse.join", "sse.leave",
];
const ROWS = 40;
const RETRY = 3000;

/**
 * Dispatches "state" when its connection changes, and "received" for each event, with what was
 * received as its detail.
 */
export class Channel extends EventTarget {
  state = "connecting";
  lastId = "";

  #source = null;
  #timer = 0;
  #openings = 0;
  #openedAt = 0;
  #bursts = new Map();
  #list;
  #position;

  constructor(name) {
    super();
    this.name = name;
    const section = document.getElementById(`channel-${name}`);
    this.#list = section.querySelector("ol");
    this.#position = section.querySelector(".position code");
  }

  /** Open the stream where it was left, or at the newest event. */
  open() {
    this.close();
    const query = new URLSearchParams({ channel: this.name, tab: visitor.tab });
    if (this.lastId) query.set("last_event_id", this.lastId);
    const source = new EventSource(`stream?${query}`);
    source.onopen = () => {
      this.#openings += 1;
      this.#openedAt = now();
      this.#change("open");
    };
    source.onerror = () => {
      this.#change("away");
      // The browser reconnects by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) {
        this.#timer = setTimeout(() => this.open(), RETRY);
      }
    };
    for (const type of TYPES) source.addEventListener(type, (event) => this.#receive(event));
    this.#source = source;
  }

  /** Close the stream; `open` goes on from here. */
  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#change("closed");
  }

  /** Wait for a state of the connection. */
  async until(state) {
    while (this.state !== state) {
      await new Promise((resolve) => this.addEventListener("state", resolve, { once: true }));
    }
  }

  /** Put a row on top of the list. */
  add(text, remark, from) {
    const row = document.createElement("li");
    row.append(part("text", text), part("remark", remark));
    if (from) {
      const name = part("from", from.tab === visitor.tab ? `${from.name} (you)` : from.name);
      name.style.setProperty("--hue", from.hue);
      row.prepend(name);
    }
    if (remark === "recovered" || remark === "missed") row.classList.add(remark);
    this.#list.prepend(row);
    while (this.#list.children.length > ROWS) this.#list.lastChild.remove();
    return row;
  }

  #change(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent("state"));
  }

  #receive({ type, data: text, lastEventId }) {
    const arrived = now();
    if (lastEventId && lastEventId !== this.lastId) {
      this.lastId = lastEventId;
      this.#position.textContent = lastEventId;
    }
    const data = parse(text);
    const recovered = this.#openings > 1 && data.at < this.#openedAt;
    const latency = "at" in data && !recovered ? Math.max(0, arrived - data.at) : null;
    this.#show(type, data, recovered ? "recovered" : latency === null ? "" : milliseconds(latency));
    const detail = { type, data, latency, recovered };
    this.dispatchEvent(new CustomEvent("received", { detail }));
  }

  #show(type, data, remark) {
    if (type === "note") this.add(data.text, remark, data.from);
    else if (type === "burst") this.#count(data, remark);
    else if (type === "greeting") this.add(`The server says ${data.message}`, remark);
    else if (type === "message") this.add(data.text, remark);
    else if (type === "sse.reset") this.add(`Events may be missing: ${data.reason}`, "reset");
    else if (type === "sse.open" && data.recovered) this.add("Goes on where it was", "resumed");
  }

  /** A thousand events are shown as one row, which counts them and checks their order. */
  #count({ burst: key, number, of, from }, remark) {
    let burst = this.#bursts.get(key);
    if (!burst) {
      burst = { row: this.add("", remark, from), count: 0, last: 0, began: now(), wrong: 0 };
      this.#bursts.set(key, burst);
    }
    if (number !== burst.last + 1) burst.wrong += 1;
    burst.last = number;
    burst.count += 1;
    const took = Math.round(now() - burst.began);
    const order = burst.wrong ? `${burst.wrong} gaps` : "in order";
    const counted = `${burst.count.toLocaleString("en")} of ${of.toLocaleString("en")}`;
    const done = number === of ? `, ${order}, in ${took} ms` : "";
    burst.row.querySelector(".text").textContent = counted + done;
    burst.row.querySelector(".remark").textContent = remark;
    burst.row.style.setProperty("--done", burst.count / of);
    burst.row.classList.add("burst");
    if (number === of) this.#bursts.delete(key);
  }
}

/** What the demo publishes is an object; others may publish anything. */
function parse(text) {
  try {
    const data = JSON.parse(text);
    if (data !== null && typeof data === "object" && !Array.isArray(data)) {
      return { text, ...data };
    }
  } catch {
    // It is no JSON.
  }
  return { text };
}

function part(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

export const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
