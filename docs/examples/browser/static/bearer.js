import { fetchEventSource } from "@microsoft/fetch-event-source";

export function follow(url, token, onmessage) {
  const controller = new AbortController();
  fetchEventSource(url, {
    headers: { Authorization: `Bearer ${token}` },
    signal: controller.signal,
    onmessage,
    async onopen(response) {
      if (response.status === 401) controller.abort(); // the token has expired
      if (!response.ok) throw new Error(`status ${response.status}`); // it tries again
    },
    onclose() {
      throw new Error("the stream has ended"); // it reconnects
    },
  });
  return () => controller.abort();
}
