// The pointers of all tabs.

import { Trails } from "./trails.js";
import { post, visitor } from "./visitor.js";

const INTERVAL = 50;
const HEARTBEAT = 4000;
const SILENCE = 10000;
const STEP = 0.02;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ARROW = "<svg viewBox='0 0 20 20' aria-hidden='true'><path d='M3 2l13 8-6 1.5-3 6z'/></svg>";

export class Cursors {
  #shown = new Map();
  #field;
  #trails;
  #place = { x: 0.2 + 0.6 * Math.random(), y: 0.55 + 0.3 * Math.random() };
  #moved = true;
  #sentAt = 0;
  #sending = false;

  constructor(field) {
    this.#field = field;
    this.#trails = new Trails(field.querySelector("canvas"));
    field.addEventListener("pointermove", (event) => this.#point(event));
    field.addEventListener("pointerdown", (event) => this.#point(event));
    field.addEventListener("keydown", (event) => this.#step(event));
    setInterval(() => this.#send(), INTERVAL);
    setInterval(() => this.#removeSilent(), 1000);
  }

  /** Have the other tabs show this one's pointer. */
  announce() {
    this.#moved = true;
  }

  /** Show a pointer where its tab has moved it. */
  move({ tab, name, hue, x, y }) {
    let shown = this.#shown.get(tab);
    if (!shown) {
      shown = { element: draw(tab, name, hue) };
      this.#shown.set(tab, shown);
      this.#field.append(shown.element);
      shown.color = getComputedStyle(shown.element).color;
      this.announce(); // a tab that is new does not know of this one
    }
    shown.at = performance.now();
    shown.element.style.transform = `translate(${100 * x}%, ${100 * y}%)`;
    shown.element.classList.toggle("left", x > 0.8);
    if (x !== shown.x || y !== shown.y) this.#trails.add(tab, shown.color, x, y);
    [shown.x, shown.y] = [x, y];
  }

  /** Remove the pointer of a tab that has gone. */
  remove(tab) {
    this.#shown.get(tab)?.element.remove();
    this.#shown.delete(tab);
  }

  /** Remove all pointers, while this tab does not listen. */
  clear() {
    for (const tab of [...this.#shown.keys()]) this.remove(tab);
  }

  #point(event) {
    const box = this.#field.getBoundingClientRect();
    this.#go((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }

  #step(event) {
    const direction = KEYS[event.key];
    if (!direction) return;
    event.preventDefault();
    const { x, y } = this.#place;
    const ratio = this.#field.clientWidth / this.#field.clientHeight;
    this.#go(x + STEP * direction[0], y + STEP * ratio * direction[1]);
  }

  #go(x, y) {
    const clamp = (share) => Math.min(1, Math.max(0, share));
    this.#place = { x: clamp(x), y: clamp(y) };
    this.#moved = true;
  }

  /** Tell where the pointer is: at most 20 times a second, and never two requests at a time. */
  async #send() {
    const now = performance.now();
    const due = this.#moved || now - this.#sentAt > HEARTBEAT;
    if (!due || this.#sending || document.hidden) return;
    this.#sending = true;
    this.#moved = false;
    this.#sentAt = now;
    try {
      await post("cursor", this.#place);
    } catch {
      // The light shows that there is no connection; the next move tries again.
    } finally {
      this.#sending = false;
    }
  }

  #removeSilent() {
    const limit = performance.now() - SILENCE;
    for (const [tab, { at }] of [...this.#shown]) if (at < limit) this.remove(tab);
  }
}

function draw(tab, name, hue) {
  const element = document.createElement("div");
  element.className = "cursor";
  element.dataset.tab = tab;
  element.style.setProperty("--hue", hue);
  element.innerHTML = ARROW;
  const label = document.createElement("span");
  const text = document.createElement("b");
  text.textContent = tab === visitor.tab ? `${name} (you)` : name;
  label.append(text);
  element.append(label);
  return element;
}
