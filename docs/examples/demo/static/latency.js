// The chart of latency.

import { milliseconds } from "./channel.js";

const BARS = 60;
const TOPS = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const [WIDTH, HEIGHT] = [300, 100];

export class Latency {
  #values = [];
  #received = 0;
  #due = false;
  #bars;

  constructor() {
    const svg = document.getElementById("chart");
    this.#bars = Array.from({ length: BARS }, (_, index) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      bar.setAttribute("x", (index * WIDTH) / BARS);
      bar.setAttribute("width", WIDTH / BARS - 1.5);
      svg.append(bar);
      return bar;
    });
  }

  /** Note how many milliseconds an event has taken. */
  add(value) {
    this.#received += 1;
    this.#values.push(value);
    if (this.#values.length > BARS) this.#values.shift();
    if (!this.#due) requestAnimationFrame(() => this.#draw());
    this.#due = true;
  }

  #draw() {
    this.#due = false;
    const values = this.#values;
    const slowest = Math.max(...values);
    const top = TOPS.find((limit) => limit >= slowest) ?? slowest;
    const first = BARS - values.length;
    this.#bars.forEach((bar, index) => {
      const value = values[index - first] ?? 0;
      const height = index < first ? 0 : Math.max(1.5, (HEIGHT * value) / top);
      bar.setAttribute("height", height);
      bar.setAttribute("y", HEIGHT - height);
    });
    const median = [...values].sort((one, other) => one - other)[values.length >> 1];
    write("chart-top", milliseconds(top));
    write("median", milliseconds(median));
    write("slowest", milliseconds(slowest));
    write("received", this.#received.toLocaleString("en"));
  }
}

function write(id, text) {
  document.getElementById(id).textContent = text;
}
