"""The site in an application that wraps the server's handler of SIGTERM, as some do to log it."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from a2wsgi import WSGIMiddleware

from tests.apps.site import app

__all__ = ["app", "asgi_app"]

# a2wsgi has types of its own for what typeshed has.
_site: Any = WSGIMiddleware(app)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def wrap() -> None:
    """Wrap the handler that the server has set, if it has set one."""
    handle = signal.getsignal(signal.SIGTERM)

    def log_and_handle(number: int, frame: FrameType | None) -> None:
        print("told to stop", flush=True)
        assert callable(handle)
        handle(number, frame)

    if callable(handle):
        signal.signal(signal.SIGTERM, log_and_handle)


async def asgi_app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Do the same when an ASGI server, which sets its handler later, has started."""
    if scope["type"] != "lifespan":
        await _site(scope, receive, send)
        return
    for step in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{step}"
        wrap()
        await send({"type": f"lifespan.{step}.complete"})


wrap()
