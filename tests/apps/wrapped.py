"""The site behind middlewares that change the body, each in a way of its own."""

import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tests.apps.site import app as site

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def iterating(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Upper-case each piece of the body as it comes."""
    body = site.wsgi_app(environ, start_response)
    try:
        for piece in body:
            yield piece.upper()
    finally:
        body.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


class _UpperCasingFile:
    """A file that hands on everything but `read` to the one inside."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, size: int = -1) -> bytes:
        piece: bytes = self._inner.read(size)
        return piece.upper()


def filing(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Wrap the file within the server's own file wrapper."""
    body = site.wsgi_app(environ, start_response)
    wrapper = environ["wsgi.file_wrapper"]
    if isinstance(body, wrapper):
        inner = body.filelike  # pyright: ignore[reportAttributeAccessIssue] - it is the wrapper's
        wrapped: Iterable[bytes] = wrapper(_UpperCasingFile(inner))
        return wrapped
    return body


def zipping(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Compress the body, a piece at a time."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("Content-Encoding", "gzip")], exc_info)

    def pieces(body: Iterable[bytes]) -> Iterator[bytes]:
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        for piece in body:
            yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
        yield packer.flush()

    return pieces(site.wsgi_app(environ, start))


def adding(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Add a header, and leave the body alone."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("X-Added", "yes")], exc_info)

    return site.wsgi_app(environ, start)


def measuring(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Announce a length, and leave the body alone."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("Content-Length", "10000")], exc_info)

    return site.wsgi_app(environ, start)
