// Follows a stream, even after a response that makes an EventSource give up.
export function follow(url, listeners) {
  let source;
  let timer;
  let seconds = 1;

  function connect() {
    source = new EventSource(url);
    source.addEventListener("open", () => {
      seconds = 1;
    });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects
      timer = setTimeout(connect, 1000 * seconds * (0.5 + Math.random()));
      seconds = Math.min(2 * seconds, 60);
    });
    for (const [type, listener] of Object.entries(listeners)) {
      source.addEventListener(type, listener);
    }
  }

  connect();
  return function stop() {
    clearTimeout(timer);
    source.close();
  };
}
