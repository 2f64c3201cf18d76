"""Waits for descriptors in greenlets, and says whether all went as it should.

Run by ``python -m gevent.monkey``, with the name of a function.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, Final

from flask_sse._system import greenlets
from flask_sse._system.poller import READ, Poller
from tests.support.waiting import wait_until

# It has no types.
gevent: Any = import_module("gevent")

_LONG: Final = 60.0


@contextmanager
def watching() -> Iterator[tuple[Poller, int, int]]:
    """Make a poller that watches a pipe; also return the pipe."""
    reader, writer = os.pipe()
    with closing(Poller()) as poller:
        poller.register(reader, READ)
        yield poller, reader, writer
    os.close(reader)
    os.close(writer)


def woken() -> None:
    """Wait for data from another greenlet, again and again; other greenlets run meanwhile."""
    with watching() as (poller, reader, writer):
        for _ in range(100):
            gevent.spawn(os.write, writer, b"x")
            assert poller.poll(_LONG) == [(reader, READ)]
            assert os.read(reader, 10) == b"x"


def timed_out() -> None:
    """Return after the timeout, also if it is 0, in which case other greenlets run too."""
    with watching() as (poller, _, _):
        assert poller.poll(0.05) == []
        other = gevent.spawn(bool)
        while not other.ready():
            assert poller.poll(0) == []


def killed() -> None:
    """After it has been killed in a wait, a greenlet is not resumed by what it waited for."""
    with watching() as (poller, reader, writer):

        def wait_and_sleep() -> None:
            started.set()
            try:
                while True:
                    poller.poll(0.2)
            except gevent.GreenletExit:
                os.write(writer, b"x")
                resumed_by.append(gevent.event.Event().wait(0.4))
                ready.extend(poller.poll(_LONG))

        started = gevent.event.Event()
        resumed_by, ready = list[bool](), list[tuple[int, int]]()
        greenlet = gevent.spawn(wait_and_sleep)
        started.wait()
        greenlet.kill()
        assert resumed_by == [False], "only its own timeout has resumed it"
        assert ready == [(reader, READ)]


def reused() -> None:
    """A poller can be closed, and its descriptor's number used by the next one."""
    for _ in range(20):
        woken()


def forked() -> None:
    """A child that is forked during a wait finds no events, and leaves them to its parent."""
    with watching() as (poller, reader, writer):
        waiting = gevent.spawn(poller.poll, _LONG)
        gevent.sleep(0)
        child = os.fork()
        if child == 0:
            poller.release_in_child()
            os.write(writer, b"x")
            os._exit(0 if waiting.get(timeout=_LONG) == [] else 1)
        assert waiting.get(timeout=_LONG) == [(reader, READ)]
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


def in_native_threads() -> None:
    """Each native thread has a loop of its own, in which its poller waits."""
    start: Callable[..., object] = gevent.monkey.get_original("_thread", "start_new_thread")
    done = list[str]()

    def run() -> None:
        woken()
        done.append("woken")
        gevent.get_hub().destroy(destroy_loop=True)

    for _ in range(2):
        start(run, ())
    woken()
    wait_until(lambda: len(done) == 2, "both threads have been woken")


if __name__ == "__main__":
    assert greenlets.is_patched()
    assert threading.current_thread() is threading.main_thread()
    cases = (woken, timed_out, killed, reused, forked, in_native_threads)
    {case.__name__: case for case in cases}[sys.argv[1]]()
    os.write(1, b"done")
