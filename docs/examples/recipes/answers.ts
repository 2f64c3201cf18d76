import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";

type Chunks = ReadableStream<UIMessageChunk>;

// The browser resumes the stream when the connection is lost, so the chunks have no gaps.
function open(url: string, signal?: AbortSignal): Chunks {
  const source = new EventSource(url);
  return new ReadableStream({
    start(controller) {
      const fail = (reason: unknown) => {
        source.close();
        controller.error(reason);
      };
      source.addEventListener("chunk", ({ data }) => controller.enqueue(JSON.parse(data)));
      source.addEventListener("sse.end", () => {
        source.close();
        controller.close();
      });
      source.addEventListener("sse.reset", () => fail(new Error("The answer is gone.")));
      source.addEventListener("error", () => {
        if (source.readyState === EventSource.CLOSED) fail(new Error("There is no stream."));
      });
      signal?.addEventListener("abort", () => {
        void fetch(url, { method: "DELETE" });
        fail(signal.reason);
      });
    },
    cancel: () => source.close(),
  });
}

export const answers: ChatTransport<UIMessage> = {
  async sendMessages({ chatId, messages, abortSignal }) {
    const response = await fetch(`/chats/${chatId}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(messages.at(-1)),
    });
    const { url } = (await response.json()) as { url: string };
    return open(url, abortSignal);
  },

  async reconnectToStream({ chatId, abortSignal }) {
    const response = await fetch(`/chats/${chatId}`);
    const { url } = (await response.json()) as { url: string | null };
    return url === null ? null : open(url, abortSignal);
  },
};
