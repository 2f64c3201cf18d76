import { fetchEventSource } from "@microsoft/fetch-event-source";

export function follow(url, onmessage) {
  let lastId = "";
  return fetchEventSource(url, {
    fetch(input, init) {
      if (lastId) init.headers["last-event-id"] = lastId;
      return fetch(input, init);
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
