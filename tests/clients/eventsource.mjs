// eventsource: the browsers' EventSource for Node.js.
import { EventSource } from "eventsource";
import { report } from "./report.mjs";

const source = new EventSource(process.argv[2]);
for (const type of ["message", "sse.open", "sse.reset", "sse.end"])
  source.addEventListener(type, (event) => report(event.type, event.data, event.lastEventId));
source.onerror = () => {
  // After 204, it does not connect again.
  if (source.readyState === EventSource.CLOSED) process.exit();
};
// A program that has nothing else to do ends while the client waits before it reconnects.
setInterval(() => {}, 1_000_000);
