// How many windows show the page, by presence: whatever they do, and however they go.

export class Windows {
  #tabs = new Set();
  #changes = []; // since the list was asked for
  #count;

  constructor(count) {
    this.#count = count;
  }

  /** Ask for the list, when the stream has been opened. */
  async load() {
    const changes = (this.#changes = []);
    const answer = await fetch("windows", { cache: "no-store" });
    const { tabs } = await answer.json();
    if (changes !== this.#changes) return; // it has been opened again
    this.#tabs = new Set(tabs);
    for (const change of changes) this.#apply(change);
    this.#tell();
  }

  /** Take note of an event of presence. */
  change(type, tab) {
    this.#changes.push([type, tab]);
    this.#apply([type, tab]);
    this.#tell();
  }

  #apply([type, tab]) {
    if (type === "sse.join") this.#tabs.add(tab);
    else this.#tabs.delete(tab);
  }

  #tell() {
    const number = this.#tabs.size;
    this.#count.textContent = number === 1 ? "1 window" : `${number} windows`;
  }
}
