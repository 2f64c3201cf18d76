self.addEventListener("fetch", (event) => {
  if (event.request.headers.get("Accept") === "text/event-stream") return;
  event.respondWith(fromCacheOrNetwork(event.request));
});

async function fromCacheOrNetwork(request) {
  return (await caches.match(request)) ?? fetch(request);
}
