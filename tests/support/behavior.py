"""How streams behave under each server, as in the documentation's table.

``python -m tests.support.behavior`` prints the table; each cell is tested.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.support import servers
from tests.support.servers import Serve

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet


class Body(StrEnum):
    """What writes to the client."""

    HANDED_OVER = "handed over"
    READ = "read by the server"


class Leave(StrEnum):
    """When the server drops a client that has left."""

    AT_ONCE = "at once"
    KEEPALIVE = "at the second keep-alive"


class Slow(StrEnum):
    """What happens to a client that does not read, once too much data waits for it."""

    DISCONNECTED = "disconnected"
    ENDS = "its stream ends; it takes a place until it goes"
    COLLECTED = "the server collects its data in memory, without a limit"


class Stop(StrEnum):
    """What happens on SIGTERM while a stream is open."""

    ENDS = "streams end, then the server"
    ENDS_LATE = "streams end when the server's timeout is over"
    CUT = "streams are aborted"
    CUT_LATE = "streams are aborted when the server's timeout is over"
    CUT_AND_WAITS = "streams are aborted, the server ends when its timeout is over"
    NEVER = "the server does not end"


class Server(NamedTuple):
    """A row of the table."""

    name: str
    serve: Serve
    body: Body
    leave: Leave
    slow: Slow
    stop: Stop
    long: bool = False
    """Whether only the long tests include it."""
    one_at_a_time: bool = False
    """Whether an open stream blocks all other requests."""
    ends_head_with_a_chunk: bool = False
    """Whether it sends a last chunk in answer to HEAD, with any application."""
    logs_broken_pipes: bool = False
    """Whether it logs a traceback for each client that has left, with any application."""
    fails_on_empty_bodies: bool = False
    """Whether it answers with status 500 if there is no body, with any application."""
    threads: int | None = None
    """How many threads it has, each of which a stream occupies; `None` for any number."""


# Those of asyncio, as concurrent.futures counts them.
_DEFAULT_THREADS: Final = ThreadPoolExecutor()._max_workers

SERVERS: Final = (
    Server(
        "gunicorn, worker gevent",
        servers.gunicorn,
        Body.HANDED_OVER,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.ENDS,
    ),
    Server(
        "gunicorn, worker gthread",
        servers.gthread,
        Body.HANDED_OVER,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.ENDS,
    ),
    Server(
        "gunicorn, worker sync",
        servers.sync,
        Body.HANDED_OVER,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.ENDS,
    ),
    Server(
        "gunicorn, worker gevent_pywsgi",
        servers.gunicorn_pywsgi,
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.ENDS,
        long=True,
        ends_head_with_a_chunk=True,
    ),
    Server(
        "gevent.pywsgi",
        servers.other("gevent.pywsgi"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.CUT,
        ends_head_with_a_chunk=True,
    ),
    Server(
        "uWSGI, with threads",
        servers.other("uwsgi --threads"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.CUT,
        threads=5,
    ),
    Server(
        "uWSGI, with gevent",
        servers.other("uwsgi --gevent"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.CUT,
        long=True,
    ),
    Server(
        "waitress",
        servers.other("waitress"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.CUT,
        long=True,
        ends_head_with_a_chunk=True,
        threads=4,
    ),
    Server(
        "cheroot",
        servers.other("cheroot"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.ENDS_LATE,
        long=True,
        threads=10,
    ),
    Server(
        "Granian, as a WSGI server",
        servers.other("granian"),
        Body.READ,
        Leave.KEEPALIVE,
        Slow.ENDS,
        Stop.NEVER,
        long=True,
        threads=5,
    ),
    Server(
        "mod_wsgi",
        servers.other("mod_wsgi"),
        Body.READ,
        Leave.KEEPALIVE,
        Slow.ENDS,
        Stop.CUT_AND_WAITS,
        long=True,
        threads=5,
    ),
    Server(
        "Uvicorn, with a2wsgi",
        servers.other("uvicorn"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.ENDS,
        Stop.ENDS,
        threads=10,
    ),
    Server(
        "Uvicorn, with Starlette's bridge",
        servers.other("uvicorn, starlette"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.COLLECTED,
        Stop.ENDS,
        long=True,
        threads=40,
    ),
    Server(
        "Uvicorn, with asgiref's bridge",
        servers.other("uvicorn, asgiref"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.ENDS,
        Stop.ENDS,
        long=True,
        one_at_a_time=True,
        threads=1,
    ),
    Server(
        "Hypercorn, with a2wsgi",
        servers.other("hypercorn"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.ENDS,
        Stop.CUT_LATE,
        long=True,
        threads=10,
    ),
    Server(
        "Hypercorn, as a WSGI server",
        servers.other("hypercorn wsgi"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.ENDS,
        Stop.CUT_LATE,
        long=True,
        fails_on_empty_bodies=True,
        threads=_DEFAULT_THREADS,
    ),
    Server(
        "eventlet",
        servers.other("eventlet"),
        Body.READ,
        Leave.KEEPALIVE,
        Slow.DISCONNECTED,
        Stop.CUT,
        long=True,
        logs_broken_pipes=True,
    ),
    Server(
        "bjoern",
        servers.other("bjoern"),
        Body.READ,
        Leave.KEEPALIVE,
        Slow.ENDS,
        Stop.CUT,
        long=True,
        one_at_a_time=True,
    ),
    Server(
        "Flask's own",
        servers.other("flask"),
        Body.READ,
        Leave.AT_ONCE,
        Slow.DISCONNECTED,
        Stop.CUT,
    ),
)


GUNICORN_EVENTLET: Final = Server(
    "gunicorn, worker eventlet",
    servers.gunicorn_eventlet,
    Body.READ,
    Leave.KEEPALIVE,
    Slow.DISCONNECTED,
    Stop.ENDS,
)
"""Not in the table, since new versions of gunicorn do not have it."""


def as_params(rows: Iterable[Server]) -> "list[ParameterSet]":
    """Return servers as parameters of a test."""
    return [
        pytest.param(row, id=row.name, marks=[pytest.mark.long] if row.long else []) for row in rows
    ]


def table() -> Iterator[str]:
    """Yield the lines of the table, as the documentation includes it."""
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield ""
    columns = (
        "Server",
        "A stream is",
        "A client that leaves is released",
        "One that does not read",
    )
    for row in (
        (*columns, "On ``SIGTERM``"),
        *((s.name, s.body, s.leave, s.slow, s.stop) for s in SERVERS),
    ):
        for start, cell in zip("*    ", row, strict=True):
            yield f"   {start} - {cell}"


if __name__ == "__main__":
    print("\n".join(table()))
