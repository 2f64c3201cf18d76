// The lines that the pointers leave behind, which fade.

const LIFE = 1600;
const THICKNESS = 7;

export class Trails {
  #canvas;
  #context;
  #trails = new Map();
  #runs = false;
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#fit()).observe(canvas);
  }

  /** Note that a tab's pointer has come to a place. */
  add(tab, color, x, y) {
    if (this.#still.matches) return;
    if (!this.#trails.has(tab)) this.#trails.set(tab, []);
    this.#trails.get(tab).push({ color, x, y, at: performance.now() });
    if (!this.#runs) requestAnimationFrame(() => this.#draw());
    this.#runs = true;
  }

  #fit() {
    this.#canvas.width = this.#canvas.clientWidth * devicePixelRatio;
    this.#canvas.height = this.#canvas.clientHeight * devicePixelRatio;
  }

  #draw() {
    const now = performance.now();
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    for (const [tab, points] of this.#trails) {
      while (points.length && now - points[0].at > LIFE) points.shift();
      if (points.length) this.#line(points, now);
      else this.#trails.delete(tab);
    }
    this.#runs = this.#trails.size > 0;
    if (this.#runs) requestAnimationFrame(() => this.#draw());
  }

  /** Draw from the middle between two points to the next middle, so that there are no corners. */
  #line(points, now) {
    const context = this.#context;
    const { width, height } = this.#canvas;
    const middle = (one, other) => [((one.x + other.x) * width) / 2, ((one.y + other.y) * height) / 2];
    for (let index = 1; index < points.length - 1; index += 1) {
      const [before, point, after] = points.slice(index - 1, index + 2);
      const freshness = 1 - (now - point.at) / LIFE;
      if (freshness <= 0) continue;
      context.beginPath();
      context.moveTo(...middle(before, point));
      context.quadraticCurveTo(point.x * width, point.y * height, ...middle(point, after));
      context.globalAlpha = 0.6 * freshness;
      context.lineWidth = THICKNESS * freshness * devicePixelRatio;
      context.strokeStyle = point.color;
      context.stroke();
    }
  }
}
