"""Requests that gunicorn's own code answers in this process, so that streams are handed over."""

import contextlib
import socket
from collections.abc import Iterable
from typing import Any, Final

import gunicorn.http
import gunicorn.http.wsgi
from flask import Flask
from gunicorn.config import Config

_SERVER: Final = "127.0.0.1:80"
_CLIENT: Final = ("127.0.0.1", 1)
_SEND_BUFFER: Final = 1 << 14
"""Bytes that the kernel keeps for a client that does not read."""


def request(app: Flask, path: str, headers: Iterable[str] = ()) -> socket.socket:
    """Send a request, and let gunicorn's code answer it, as its sync worker does.

    It returns when the stream has been handed over, or when the answer has been sent.

    :return: the client's end of the connection, which does not block.
    """
    server, client = socket.socketpair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *headers])
    client.sendall(f"{head}\r\n\r\n".encode())
    client.setblocking(False)
    try:
        with server:
            _answer(app, server)
    except BaseException:
        client.close()
        raise
    return client


def _answer(app: Flask, server: socket.socket) -> None:
    config = Config()
    # The stubs know the parser of an earlier version.
    parser: Any = gunicorn.http.RequestParser(config, server, _CLIENT)
    # They also differ from Werkzeug's in what WSGI is.
    create: Any = gunicorn.http.wsgi.create
    response, environ = create(next(parser), server, _CLIENT, _SERVER, config)
    body: Any = app.wsgi_app(environ, response.start_response)
    try:
        # A connection that has been handed over seems to be broken.
        with contextlib.suppress(BrokenPipeError):
            if isinstance(body, environ["wsgi.file_wrapper"]):
                response.write_file(body)
            else:
                for piece in body:
                    response.write(piece)
            response.close()
    finally:
        if hasattr(body, "close"):
            body.close()


class Answer:
    """The head and the body of an HTTP/1.1 answer, taken apart as they arrive."""

    def __init__(self) -> None:
        self.status = 0
        self.is_complete = False
        """Whether the body has ended properly."""
        self._is_chunked = False
        self._left = 0
        self._raw = b""

    def feed(self, data: bytes) -> bytes:
        """Return the next bytes of the body, even of a chunk that is not complete."""
        self._raw += data
        if not self.status:
            self._read_head()
        if not self.status:
            return b""
        if not self._is_chunked:
            body, self._raw = self._raw, b""
            return body
        return b"".join(iter(self._read_chunk, b""))

    def _read_head(self) -> None:
        head, end, rest = self._raw.partition(b"\r\n\r\n")
        if end:
            self.status = int(head.split()[1])
            self._is_chunked = b"transfer-encoding: chunked" in head.lower()
            self._raw = rest

    def _read_chunk(self) -> bytes:
        while not self._left:
            line, end, rest = self._raw.partition(b"\r\n")
            if not end:
                return b""
            self._raw = rest
            # A chunk ends with an empty line.
            if line:
                self._left = int(line, 16)
                self.is_complete = self._left == 0
        piece, self._raw = self._raw[: self._left], self._raw[self._left :]
        self._left -= len(piece)
        return piece
