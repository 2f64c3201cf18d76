// launchdarkly-eventsource: an EventSource for Node.js. It throws its errors if nobody listens.
import { EventSource } from "launchdarkly-eventsource";
import { report } from "./report.mjs";

const source = new EventSource(process.argv[2]);
source.onerror = () => {
  // After 204, it does not connect again, which it knows when this function has returned.
  setImmediate(() => {
    if (source.readyState === EventSource.CLOSED) process.exit();
  });
};
for (const type of ["message", "sse.open", "sse.reset", "sse.end"])
  source.addEventListener(type, (event) => report(event.type, event.data, event.lastEventId));
