"""Interruptions at every possible moment, as by the garbage collector.

The collector may run between any two instructions of any function. It closes generators there,
and with them streams.
"""

import itertools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import TYPE_CHECKING

from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from _typeshed import TraceFunction


class _Interruption:
    """Calls a function when a number of instructions have run."""

    def __init__(self, instructions: int, interrupt: Callable[[], object]) -> None:
        self._left = instructions
        self._interrupt = interrupt
        self.is_over = False

    def trace(self, frame: FrameType, _: str, __: object) -> "TraceFunction":
        """Follow the instructions of a call, and not its lines."""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._count

    def _count(self, _: FrameType, event: str, __: object) -> "TraceFunction":
        if event == "opcode":
            if self._left == 0:
                # What follows need not be traced, which takes most of the time.
                sys.settrace(None)
                self.is_over = True
                self._interrupt()
            self._left -= 1
        return self._count


def run_with_interruptions(function: Callable[[], object], interrupt: Callable[[], object]) -> None:
    """Call a function again and again, each time with an interruption at another instruction.

    :raises AssertionError: if it does not come to an end.
    """
    # If it waits for itself, the thread must not keep the tests from ending.
    result: Future[None] = Future()

    def run() -> None:
        try:
            _run_until_uninterrupted(function, interrupt)
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the test
            result.set_exception(error)
        else:
            result.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        result.result(4 * PATIENCE)
    except TimeoutError:
        raise AssertionError("it waits for itself") from None


def _run_until_uninterrupted(
    function: Callable[[], object], interrupt: Callable[[], object]
) -> None:
    usual = sys.gettrace()
    for instructions in itertools.count():
        interruption = _Interruption(instructions, interrupt)
        sys.settrace(interruption.trace)
        try:
            function()
        finally:
            sys.settrace(usual)
        if not interruption.is_over:
            return
