// One stream for all tabs of an origin. It ends when the last tab is closed.
const source = new EventSource("/stream");
const ports = new Set();

function send(type, data) {
  for (const port of ports) port.postMessage({ type, data });
}

source.addEventListener("open", () => send("open"));
source.addEventListener("notification", (event) => send("notification", JSON.parse(event.data)));

self.addEventListener("connect", ({ ports: [port] }) => {
  port.onmessage = ({ data: type }) => {
    if (type === "pagehide") {
      ports.delete(port);
    } else {
      ports.add(port);
      if (source.readyState === EventSource.OPEN) port.postMessage({ type: "open" });
    }
  };
});
