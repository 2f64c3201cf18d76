// Follows a stream until it is told to stop. Connects again after a response that makes an
// EventSource give up, when nothing has arrived for `silence` seconds, and when the page comes back
// from the back/forward cache. On a channel with history, no event is lost in between.
export function follow(url, listeners, { silence = Infinity, lastId = "" } = {}) {
  const types = ["open", "error", "heartbeat", "sse.open", "sse.reset", ...Object.keys(listeners)];
  const stopped = new AbortController();
  let source;
  let timer;
  let heard;
  let delay = 1;

  function connect() {
    clearTimeout(timer);
    source?.close();
    heard = Date.now();
    const address = new URL(url, location.href);
    if (lastId) address.searchParams.set("last_event_id", lastId);
    source = new EventSource(address);
    for (const type of new Set(types)) {
      source.addEventListener(type, (event) => {
        heard = Date.now();
        lastId = event.lastEventId || lastId;
        listeners[type]?.(event);
      });
    }
    source.addEventListener("open", () => {
      delay = 1;
    });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects
      timer = setTimeout(connect, 1000 * delay * (0.5 + Math.random()));
      delay = Math.min(2 * delay, 60);
    });
  }

  function check() {
    if (source.readyState === EventSource.CLOSED) return; // the timer is running
    if (Date.now() - heard > 1000 * silence) connect();
  }

  function restore({ persisted }) {
    if (persisted && source.readyState !== EventSource.CONNECTING) connect();
  }

  connect();
  const watchdog = setInterval(check, 1000);
  document.addEventListener("visibilitychange", check, { signal: stopped.signal });
  addEventListener("pageshow", restore, { signal: stopped.signal });
  return function stop() {
    stopped.abort();
    clearInterval(watchdog);
    clearTimeout(timer);
    source.close();
    return lastId; // for another call, which continues from there
  };
}
