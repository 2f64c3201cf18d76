"""A server of ASGI applications in this process, for as many requests as a test wants."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from tests.support.waiting import PATIENCE, wait_until

Message = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]
MakeVisit = Callable[..., "Visit"]


class Visit:
    """A request, as an ASGI server passes it to an application.

    What is sent to a client that has left is dropped, as all servers do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, app: Application, path: str) -> None:
        self.app = app
        self._loop = loop
        self._has_left = asyncio.Event()
        self._is_read = False
        self.body = b""
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"host", b"test")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self._end = asyncio.run_coroutine_threadsafe(_call(app, scope, self), loop)

    def wait_body(self) -> bytes:
        """Wait for the first bytes of the body; return the body so far."""
        wait_until(lambda: self.body or self._end.done(), "a body")
        return self.body

    def leave(self) -> None:
        """Close the client's connection."""
        self._loop.call_soon_threadsafe(self._has_left.set)

    def wait_end(self) -> bytes:
        """Wait until the application has returned; return the whole body."""
        self._end.result(PATIENCE)
        return self.body

    async def receive(self) -> Message:
        """Return the request, and then that the client has left."""
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a part of the response."""
        self.body += message.get("body", b"")


async def _call(app: Application, scope: Message, visit: Visit) -> None:
    await app(scope, visit.receive, visit.send)


@contextmanager
def serving() -> Iterator[MakeVisit]:
    """Run an event loop in a thread; the function makes visits there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    visits: list[Visit] = []

    def visit(app: Application, path: str = "/stream") -> Visit:
        visits.append(Visit(loop, app, path))
        return visits[-1]

    try:
        yield visit
    finally:
        for each in visits:
            each.leave()
        for each in visits:
            each.wait_end()
            # Some bridges have threads of their own.
            if isinstance(executor := getattr(each.app, "executor", None), Executor):
                executor.shutdown()
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
