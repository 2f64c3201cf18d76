import { fetchEventSource } from "@microsoft/fetch-event-source";

export function follow(url, onmessage) {
  let lastId = "";
  const controller = new AbortController();
  return fetchEventSource(url, {
    signal: controller.signal,
    fetch(input, init) {
      if (lastId) init.headers["last-event-id"] = lastId;
      return fetch(input, init);
    },
    async onopen({ status }) {
      // There is nothing more to come, or not for this user.
      if (status === 204 || status === 403) controller.abort();
      else if (status !== 200) throw new Error(`the status is ${status}`);
    },
    onmessage(event) {
      // Called only for complete events.
      lastId = event.id || lastId;
      onmessage(event);
    },
    onclose() {
      throw new Error("the stream has ended, so reconnect");
    },
  });
}
