// eventsource-client: one function for every event, whatever its name.
import { createEventSource } from "eventsource-client";
import { report } from "./report.mjs";

createEventSource({
  url: process.argv[2],
  onMessage: (event) => report(event.event ?? "message", event.data, event.id ?? ""),
});
