"""Checks of the head of a stream's response: its headers, and changes made on the way.

They run in the command's thread. Only the check for HTTP/2 waits for the server.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from flask_sse._doctor.finding import Finding, attempt, fail, in_words, ok, soon, warn
from flask_sse._event.client import MEDIA_TYPE, StreamResponse

CONNECTIONS_OF_A_BROWSER: Final = 6
"""How many connections a browser opens to one host with HTTP/1.1."""
SEE_LOG: Final = "see the server's log for the reason; an EventSource gives up for good"
_REMEDIES: Final[Mapping[int, str]] = {
    204: "this tells an EventSource to stop; let the view return sse.stream()",
    401: "log in with --header 'Cookie: ...'",
    403: "log in with --header 'Cookie: ...', or choose an allowed channel with --channel",
    404: "give the URL of the stream, which `flask routes` shows",
    405: "give the URL of the stream, which `flask routes` shows",
    429: "raise the proxy's limit of requests or connections per client",
    500: f"set REDIS_URL; with memory:// start one worker; {SEE_LOG}",
    502: f"start the server, or correct its address in the proxy; {SEE_LOG}",
    503: f"raise the proxy's connection limit, such as limit_conn of nginx; {SEE_LOG}",
    504: "make sure that the server answers at once, and raise the proxy's timeout",
}


def check_status(stream: StreamResponse) -> Finding | None:
    """Return the reason why a response is not an event stream, or `None` if it is one."""
    if stream.status != http.client.OK:
        remedy = _REMEDIES.get(stream.status, SEE_LOG)
        return fail("status", f"{stream.status} {stream.reason}", remedy)
    if stream.media_type != MEDIA_TYPE:
        by_redirect = ", after a redirect" if stream.redirects else ""
        return fail(
            "content type",
            f"{stream.media_type} instead of {MEDIA_TYPE}{by_redirect}, at {stream.url}",
            "log in with --header 'Cookie: ...' if this is a login page, or give the stream's URL; "
            "an EventSource gives up for good",
        )
    return None


def check_head(stream: StreamResponse, after: float, origin: str | None) -> Iterator[Finding]:
    """Yield the findings about the head of an event stream.

    :param after: Seconds until the head arrived.
    :param origin: The origin that was sent.
    """
    yield soon("headers", f"{stream.status} {stream.reason} after {in_words(after)}", after)
    if stream.redirects:
        yield warn(
            "redirect",
            f"the stream is at {stream.url}, and every reconnect is redirected too",
            "have pages connect to that URL",
        )
    yield ok("content type", stream.headers.get("Content-Type", ""))
    checks: dict[str, Callable[[StreamResponse], Finding]] = {
        "caching": _check_caching,
        "compression": _check_compression,
        "HTTP version": _check_http_version,
        "server": _check_server,
    }
    for name, check in checks.items():
        yield from attempt(name, partial(check, stream))
    if origin is not None:
        yield from attempt("CORS", partial(_check_cors, stream, origin))


def _check_caching(stream: StreamResponse) -> Finding:
    control = stream.headers.get("Cache-Control", "")
    if "Age" in stream.headers or "no-store" not in control:
        return warn(
            "caching",
            f"Cache-Control is {control!r}, not the stream's own value: something may cache it",
            "exclude the stream from the rules that cache responses or set headers",
        )
    return ok("caching", control)


def _check_compression(stream: StreamResponse) -> Finding:
    if stream.compression:
        return fail(
            "compression",
            f"something compresses the stream with {stream.compression}, despite no-transform, and "
            f"may hold events back until there are enough of them",
            f"exclude {MEDIA_TYPE}: from gzip_types in nginx, from the rules of a CDN",
        )
    return ok("compression", "none")


def _check_http_version(stream: StreamResponse) -> Finding:
    if stream.is_http_1_0:
        return warn(
            "HTTP version",
            "HTTP/1.0, in which the end of a stream and a lost connection look the same",
            "make the server or the proxy use HTTP/1.1 or HTTP/2",
        )
    if not stream.url.startswith("https:"):
        return ok(
            "HTTP version",
            f"HTTP/1.1: a browser opens {CONNECTIONS_OF_A_BROWSER} connections to a host",
        )
    if _offers_http2(stream.url):
        return ok("HTTP version", "HTTP/2 is offered to browsers")
    return warn(
        "HTTP version",
        f"HTTP/1.1 only: a browser opens {CONNECTIONS_OF_A_BROWSER} connections to a host",
        "enable HTTP/2 in the proxy, for example with `http2 on` in nginx",
    )


def _offers_http2(url: str) -> bool:
    parts = urlsplit(url)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as wrapped,
        ):
            return wrapped.selected_alpn_protocol() == "h2"
    except OSError:
        return False


def _check_server(stream: StreamResponse) -> Finding:
    """Describe the server; if there is a proxy, only the proxy can be seen."""
    server = stream.headers.get("Server", "")
    if server.startswith("Werkzeug"):
        return warn(
            "server",
            f"{server}: Flask's own server, which is meant for development",
            "use gunicorn in production",
        )
    if not server.startswith("gunicorn"):
        name = server or "the response does not name it"
        return ok("server", f"{name}; the doctor can't see what is behind it")
    if "close" in stream.headers.get("Connection", ""):
        return ok("server", f"{server}; the stream has its own connection, as after a hand-over")
    return warn(
        "server",
        f"{server} keeps the connection: the stream is not handed over, and occupies a thread or a "
        f"greenlet",
        "set SSE_DIRECT to True, remove --no-sendfile, and don't wrap the body in middleware",
    )


def _check_cors(stream: StreamResponse, origin: str) -> Finding:
    allowed = stream.headers.get("Access-Control-Allow-Origin")
    if allowed not in {"*", origin}:
        found = "none" if allowed is None else allowed
        return fail(
            "CORS",
            f"pages of {origin} may not connect: Access-Control-Allow-Origin is {found}",
            f"set it to {origin} in a function that is registered with sse.after_request",
        )
    has_cookies = stream.headers.get("Access-Control-Allow-Credentials") == "true"
    cookies = "with" if has_cookies and allowed != "*" else "without"
    return ok("CORS", f"pages of {origin} may connect, {cookies} cookies")
