// launchdarkly-eventsource: an EventSource for Node.js. It throws its errors if nobody listens.
import { EventSource } from "launchdarkly-eventsource";
import { report } from "./report.mjs";

const source = new EventSource(process.argv[2]);
source.onerror = () => {};
for (const type of ["message", "sse.open", "sse.reset"])
  source.addEventListener(type, (event) => report(event.type, event.data, event.lastEventId));
