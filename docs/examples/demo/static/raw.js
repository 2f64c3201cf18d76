// The text of a stream as it comes, which an EventSource does not show; so this one is fetched.

const LONGEST = 20000;

export class Raw {
  #abort = null;
  #form;
  #button;
  #output;

  constructor(form, output) {
    this.#form = form;
    this.#button = form.querySelector("button");
    this.#output = output;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#abort) this.stop();
      else this.#start();
    });
    form.elements.channel.addEventListener("change", () => {
      if (!this.#abort) return;
      this.stop();
      this.#start();
    });
  }

  /** Close the connection. */
  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.#button.setAttribute("aria-pressed", "false");
    this.#button.textContent = "Show";
  }

  async #start() {
    const abort = new AbortController();
    this.#abort = abort;
    this.#button.setAttribute("aria-pressed", "true");
    this.#button.textContent = "Stop";
    this.#output.textContent = "";
    const query = new URLSearchParams({ channel: this.#form.elements.channel.value });
    try {
      const response = await fetch(`stream?${query}`, { cache: "no-store", signal: abort.signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        this.#append(piece.value);
      }
      this.#append("\n[the stream has ended]\n");
    } catch (error) {
      if (error.name !== "AbortError") this.#append(`\n[${error.message}]\n`);
    }
    if (this.#abort === abort) this.stop();
  }

  #append(text) {
    const output = this.#output;
    const follows = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    output.textContent = (output.textContent + text).slice(-LONGEST);
    if (follows) output.scrollTop = output.scrollHeight;
  }
}
