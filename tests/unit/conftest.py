"""Holds these tests to what they are: they start no process."""

import sys
from collections.abc import Iterator

import pytest

_forbidden: list[str] = []


def _forbid(event: str, _: object) -> None:
    if event == "subprocess.Popen" and _forbidden:
        raise AssertionError(f"{_forbidden[-1]} starts a process, so it belongs elsewhere")


# An audit hook stays for as long as the process.
sys.addaudithook(_forbid)


@pytest.fixture(autouse=True)
def start_no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a process."""
    _forbidden.append(request.node.nodeid)
    yield
    _forbidden.pop()
