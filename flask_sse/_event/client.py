"""A client for event streams, like ``EventSource`` in browsers.

It blocks the thread that uses it. Only :meth:`StreamResponse.close` may be called from another
thread.
"""

import base64
import contextlib
import http.client
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from flask_sse._event.parser import Parsed, Parser
from flask_sse._system.clock import monotonic

MEDIA_TYPE: Final = "text/event-stream"

_CONNECT_WITHIN: Final = 10.0
_RETRY: Final = 3.0
_LEAST_WAIT: Final = 0.01
_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 3.0
_ENDS_AT_ONCE: Final = 1.0
_LONGEST_WAIT: Final = 86_400.0
_AT_ONCE: Final = 1 << 16
_MOST_REDIRECTS: Final = 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAFE_IN_URL: Final = "/%:@!$&'()*+,;=~?"
_COMPRESSIONS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_MAGIC: Final = b"\x1f\x8b"


class StreamResponse:
    """A response whose body is read as it arrives.

    :param url: The URL of the response, after all redirects.
    :param redirects: The status of each redirect on the way.
    """

    def __init__(
        self,
        url: str,
        response: http.client.HTTPResponse,
        connection: socket.socket,
        redirects: tuple[int, ...],
    ) -> None:
        self.url = url
        self.redirects = redirects
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.is_http_1_0 = response.version == 10
        self.was_cut = False
        """Whether the body ended too early."""
        self._response = response
        self._connection = connection
        self._decompress = _decompressor(self.compression)

    @property
    def media_type(self) -> str:
        """The type of the body, without parameters."""
        return self.headers.get_content_type()

    @property
    def compression(self) -> str:
        """How the body is compressed; empty if it is not compressed."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    @property
    def is_readable(self) -> bool:
        """Whether the body can be read here; only the oldest compressions are supported."""
        return self.compression in {"", *_COMPRESSIONS}

    def read(self) -> bytes:
        """Wait for the next piece of the body; empty at its end.

        :raises http.client.HTTPException: if the body is not compressed as the head says.
        """
        while True:
            try:
                piece = self._response.read1(_AT_ONCE)
            except (OSError, ValueError, http.client.HTTPException):
                self.was_cut = True
                return b""
            try:
                if not piece or (piece := self._decompress(piece)):
                    return piece
            except zlib.error as error:
                raise http.client.HTTPException(
                    f"{self.url} has the header Content-Encoding: {self.compression}, but its body "
                    f"can't be decompressed: {error}"
                ) from error

    def close(self) -> None:
        """Close the connection; a thread that is reading sees the end of the stream."""
        hang_up(self._connection)
        _close(self._response, self._connection)


def hang_up(connection: socket.socket) -> None:
    """Shut a connection down; a thread that is reading sees its end."""
    with contextlib.suppress(OSError):
        # The method of a TLS socket would remove the encryption while a thread is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def open_stream(
    url: str,
    headers: Mapping[str, str],
    *,
    connected: Callable[[socket.socket], object] = lambda _: None,
) -> StreamResponse:
    """Request a stream, and wait for the head of the response; redirects are followed.

    :param connected: Called with each connection; :func:`hang_up` on it ends the wait.
    :raises ValueError: if *url* is not an HTTP URL.
    :raises OSError: if the connection fails.
    :raises http.client.HTTPException: if the answer is not HTTP, or there are too many redirects.
    """
    redirects: list[int] = []
    while True:
        response, connection = _request(url, headers, connected)
        location = response.headers.get("Location")
        if response.status not in _REDIRECTS or location is None:
            return StreamResponse(url, response, connection, tuple(redirects))
        _close(response, connection)
        redirects.append(response.status)
        if len(redirects) > _MOST_REDIRECTS:
            raise http.client.HTTPException(f"{url} redirects more than {_MOST_REDIRECTS} times")
        url = urljoin(url, location)


def follow(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    opened: Callable[[], object] = lambda: None,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = monotonic,
) -> Iterator[Parsed]:
    """Yield the events of a stream, and reconnect as a browser does, until the stream is over.

    It raises an error in the cases in which a browser would give up for good, except if the
    server answers 204 when it reconnects. It waits as long as the stream says, and longer while
    connections fail or streams end at once without an event (WHATWG specification, section
    9.2.3).

    :param opened: Called each time the stream has been opened.
    :param wait: Called with the number of seconds to wait before it reconnects.
    :param clock: Returns the time in seconds.
    :raises ValueError: like :func:`open_stream`.
    :raises OSError: if the first connection fails.
    :raises http.client.HTTPException: if the answer is not an event stream, or its body is not
        compressed as its head says.
    """
    last_id, retry, was_open, failures = "", _RETRY, False, 0
    while True:
        cursor = {"Last-Event-ID": last_id} if last_id else {}
        started, has_event = clock(), False
        try:
            stream = open_stream(url, {"Accept": MEDIA_TYPE, **(headers or {}), **cursor})
        except OSError:
            if not was_open:
                raise
            failures += 1
            wait(_pause(retry, failures))
            continue
        with contextlib.closing(stream):
            if was_open and stream.status == http.client.NO_CONTENT:
                return
            _require_stream(stream)
            was_open = True
            opened()
            parser = Parser(last_id)
            while piece := stream.read():
                for event in parser.feed(piece):
                    has_event = True
                    yield event
        last_id = parser.last_id
        retry = retry if parser.retry is None else min(parser.retry / 1000, _LONGEST_WAIT)
        is_failure = not has_event and clock() - started < _ENDS_AT_ONCE
        failures = failures + 1 if is_failure else 0
        wait(_pause(retry, failures))


def _pause(retry: float, failures: int) -> float:
    """Return how many seconds to wait after this many failures in a row."""
    if not failures:
        return max(retry, _LEAST_WAIT)
    # The exponent has a bound because a float has.
    return max(retry, min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 10), _LONGEST_BACKOFF))


def _require_stream(stream: StreamResponse) -> None:
    if stream.status != http.client.OK:
        raise http.client.HTTPException(
            f"{stream.url} answers {stream.status} {stream.reason}; a browser gives up after that"
        )
    if stream.media_type != MEDIA_TYPE:
        raise http.client.HTTPException(
            f"{stream.url} answers with {stream.media_type} instead of {MEDIA_TYPE}"
        )
    if not stream.is_readable:
        raise http.client.HTTPException(f"{stream.url} is compressed with {stream.compression}")


def _request(
    url: str, headers: Mapping[str, str], connected: Callable[[socket.socket], object]
) -> tuple[http.client.HTTPResponse, socket.socket]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL that begins with http:// or https:// and a host")
    kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[parts.scheme]
    connection = kind(parts.hostname, parts.port, timeout=_CONNECT_WITHIN)
    connection.connect()
    # The response takes the socket over, and then the connection no longer has it.
    own: socket.socket = connection.sock
    own.settimeout(None)
    connected(own)
    target = quote(parts.path or "/", safe=_SAFE_IN_URL)
    if parts.query:
        target += f"?{quote(parts.query, safe=_SAFE_IN_URL)}"
    given = {"Accept-Encoding": "identity", "Cache-Control": "no-store"}
    if parts.username is not None:
        given["Authorization"] = _basic(parts.username, parts.password or "")
    given.update(headers)
    try:
        connection.request("GET", target, headers=given)
        return connection.getresponse(), own
    except BaseException:
        own.close()
        raise


def _close(response: http.client.HTTPResponse, connection: socket.socket) -> None:
    response.close()
    connection.close()


def _basic(user: str, password: str) -> str:
    login = f"{unquote(user)}:{unquote(password)}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _decompressor(compression: str) -> Callable[[bytes], bytes]:
    return _Inflater().decompress if compression in _COMPRESSIONS else bytes


class _Inflater:
    """Decompresses gzip, zlib, and the raw form that some servers call deflate too."""

    def __init__(self) -> None:
        self._start = b""
        self._decompress: Callable[[bytes], bytes] | None = None

    def decompress(self, piece: bytes) -> bytes:
        """Return what can be decompressed so far.

        :raises zlib.error: if it is not compressed, or damaged.
        """
        if self._decompress is None:
            piece, self._start = self._start + piece, b""
            if len(piece) < len(_GZIP_MAGIC):
                self._start = piece
                return b""
            self._decompress = zlib.decompressobj(_window_bits(piece)).decompress
        return self._decompress(piece)


def _window_bits(start: bytes) -> int:
    """Return the parameter with which zlib reads a body (RFC 1950, section 2.2; RFC 1952)."""
    has_zlib_header = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2]) % 31 == 0
    if has_zlib_header or start.startswith(_GZIP_MAGIC):
        # This recognizes the header of either format.
        return zlib.MAX_WBITS | 32
    return -zlib.MAX_WBITS
