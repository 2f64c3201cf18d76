"""How the commands write: one line a thing, for people or for machines.

For the main thread of a command.
"""

import contextlib
import io
import json
import os
import select
import sys
from collections.abc import Generator, Mapping
from typing import Any, Final

import click

_CONTROL: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def one_line(text: str) -> str:
    r"""Return *text* with everything escaped that would move the cursor of a terminal.

    >>> print(one_line("two\nlines, \x1b[31mred"))
    two\nlines, \x1b[31mred
    """
    return "".join(
        letter if letter.isprintable() else _CONTROL.get(letter) or ascii(letter)[1:-1]
        for letter in text
    )


def write_json(fields: Mapping[str, Any]) -> None:
    """Write an object as one line of JSON."""
    click.echo(json.dumps(fields, ensure_ascii=False))


def is_output_closed() -> bool:
    """Whether the program that reads the output has gone, as ``head`` does.

    Writing would tell as well, but a channel may be silent for hours.
    """
    # Windows has no poll, and where gevent has patched, there is none either.
    poll = getattr(select, "poll", None)
    try:
        descriptor = sys.stdout.fileno()
    except (io.UnsupportedOperation, ValueError):
        return False
    if poll is None:
        return False
    watch = poll()
    watch.register(descriptor, 0)
    return bool(watch.poll(0))


@contextlib.contextmanager
def ending_quietly() -> Generator[None]:
    """Take Ctrl-C, and an output that is closed, for the end that they are."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # What is buffered would be written at the interpreter's end, and fail once more.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
