"""A server in this process that gives the answers that a test specifies."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = Callable[[BaseHTTPRequestHandler], None]


def streaming(
    *pieces: bytes,
    stays_open: bool = False,
    server: str = "test",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return a handler that answers with a stream.

    :param stays_open: Whether the stream stays open until the client closes it.
    :param server: What the server calls itself.
    :param headers: More headers of the response.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.server_version = server
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        for piece in pieces:
            request.wfile.write(piece)
        if stays_open:
            request.connection.recv(1)

    return answer


def answering(status: int, location: str | None = None) -> Answer:
    """Return a handler that answers with a status and without a stream."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", "text/html")
        if location is not None:
            request.send_header("Location", location)
        request.end_headers()

    return answer


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """Answer one request after the other, and repeat the last answer.

    It yields the URL of a stream, and the requests.
    """
    left, asked = list(answers), list[BaseHTTPRequestHandler]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self)
            (left.pop(0) if len(left) > 1 else left[0])(self)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stream", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
