"""A client for event streams, like ``EventSource`` in browsers.

It blocks the thread that uses it. Only :meth:`Stream.close` may be called from another thread.
"""

import base64
import codecs
import contextlib
import http.client
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

MEDIA_TYPE: Final = "text/event-stream"

_CONNECT_WITHIN: Final = 10.0
_RETRY: Final = 3.0
_AT_ONCE: Final = 1 << 16
_MOST_REDIRECTS: Final = 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_SAFE_IN_URL: Final = "/%:@!$&'()*+,;=~?"
_COMPRESSIONS: Final = frozenset({"gzip", "deflate"})


class Event(NamedTuple):
    """An event as a page gets it."""

    type: str
    data: str
    id: str
    """The last id in the stream, from this event or an earlier one."""


class Parser:
    """Parses events from bytes, piece by piece (WHATWG specification, section 9.2.6)."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry: int | None = None
        """Milliseconds, if the stream has set it."""
        self.comments = 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._ends_in_cr = False
        self._rest = ""
        self._type = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that *piece* completes."""
        text = self._decoder.decode(piece)
        if not text:
            return []
        # This line feed belongs to the carriage return at the end of the piece before.
        if self._ends_in_cr:
            text = text.removeprefix("\n")
        self._ends_in_cr = text.endswith("\r")
        *lines, self._rest = _LINE_END.split(self._rest + text)
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "":
                self.comments += 1
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = int(value)
            case _:
                pass
        return None

    def _dispatch(self) -> Event | None:
        kind, data = self._type or "message", self._data
        self._type, self._data = "", []
        return Event(kind, "\n".join(data), self.last_id) if data else None


class Stream:
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
        """Wait for the next piece of the body; empty at its end."""
        while True:
            try:
                piece = self._response.read1(_AT_ONCE)
            except (OSError, ValueError, http.client.HTTPException):
                self.was_cut = True
                return b""
            if not piece or (piece := self._decompress(piece)):
                return piece

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
) -> Stream:
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
            return Stream(url, response, connection, tuple(redirects))
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
) -> Iterator[Event]:
    """Yield the events of a stream, and reconnect as a browser does.

    It raises an error in the cases in which a browser would give up for good.

    :param opened: Called each time the stream has been opened.
    :param wait: Called with the number of seconds to wait before it reconnects.
    :raises ValueError: like :func:`open_stream`.
    :raises OSError: if the first connection fails.
    :raises http.client.HTTPException: if the answer is not an event stream.
    """
    last_id, retry, was_open = "", _RETRY, False
    while True:
        cursor = {"Last-Event-ID": last_id} if last_id else {}
        try:
            stream = open_stream(url, {"Accept": MEDIA_TYPE, **(headers or {}), **cursor})
        except OSError:
            if not was_open:
                raise
            wait(retry)
            continue
        with contextlib.closing(stream):
            _require_stream(stream)
            was_open = True
            opened()
            parser = Parser(last_id)
            while piece := stream.read():
                yield from parser.feed(piece)
        last_id = parser.last_id
        retry = retry if parser.retry is None else parser.retry / 1000
        wait(retry)


def with_channel(url: str, channel: str) -> str:
    """Return the URL of another channel of a stream.

    >>> with_channel("http://localhost/stream?token=1&channel=a", "b c")
    'http://localhost/stream?token=1&channel=b+c'
    """
    parts = urlsplit(url)
    query = [
        pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "channel"
    ]
    return parts._replace(query=urlencode([*query, ("channel", channel)]), fragment="").geturl()


def _require_stream(stream: Stream) -> None:
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
    if compression not in _COMPRESSIONS:
        return bytes
    # This recognizes the header of either format.
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress
