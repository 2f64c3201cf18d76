"""The output of the commands: one line per item, for people or for machines.

Only the main thread of a command uses it.
"""

import contextlib
import io
import json
import os
import select
import sys
import time
from collections.abc import Generator, Mapping
from typing import Any, Final

import click

from flask_sse._doctor.finding import Finding, Level
from flask_sse._event.message import Message

_COLOURS: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
_CONTROL: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def one_line(text: str) -> str:
    r"""Return *text* with all characters escaped that would move a terminal's cursor.

    >>> print(one_line("two\nlines, \x1b[31mred"))
    two\nlines, \x1b[31mred
    """
    return "".join(
        letter if letter.isprintable() else _CONTROL.get(letter) or ascii(letter)[1:-1]
        for letter in text
    )


def write_json(fields: Mapping[str, Any]) -> None:
    """Write an object as one line of JSON; NaN and Infinity become null, as in browsers."""
    try:
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    except ValueError:
        # Python reads and writes these numbers, which JSON does not have.
        with_nulls = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        line = json.dumps(with_nulls, ensure_ascii=False)
    click.echo(line)


def write_event(channel: str, message: Message) -> None:
    """Write an event for people, as one line."""
    data = message.data if isinstance(message.data, str) else json.dumps(message.data)
    line = " ".join(
        [
            click.style(time.strftime("%H:%M:%S"), dim=True),
            click.style(one_line(channel), fg="cyan"),
            click.style(one_line(str(message.type or "message")), fg="green", bold=True),
            one_line(data),
        ]
    )
    if message.id is not None:
        line += click.style(f"  id={one_line(str(message.id))}", dim=True)
    click.echo(line)


def write_finding(finding: Finding) -> None:
    """Write a finding for people, as one line."""
    level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level], bold=True)
    line = f"{level}  {finding.check}: {one_line(finding.found)}"
    if finding.remedy:
        line += click.style(f" - {one_line(finding.remedy)}", bold=True)
    click.echo(line)


def is_output_closed() -> bool:
    """Whether the program that reads the output has ended, as ``head`` does.

    Writing would show it too, but a channel may be silent for hours.
    """
    # There is no poll on Windows, or if gevent has patched.
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
    """Treat Ctrl-C and a closed output as a normal end."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The interpreter would write buffered data at exit, and fail again.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
