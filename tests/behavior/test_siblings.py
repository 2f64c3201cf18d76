"""Whether other processes do the same: real processes, and a real file of locks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_sse._streaming import siblings
from tests.support.waiting import PATIENCE

# Importing only this module is faster.
LOADING = f"""
import os, sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("siblings", {siblings.__file__!r})
siblings = module_from_spec(spec)
spec.loader.exec_module(siblings)
has_sibling = siblings.has_sibling
"""

ASKING = f"""
{LOADING}
print(has_sibling(sys.argv[1]), flush=True)
sys.stdin.read()
"""

FORKING = f"""
{LOADING}
print(has_sibling(sys.argv[1]), has_sibling(sys.argv[1]), flush=True)
if os.fork() == 0:
    print(has_sibling(sys.argv[1]), flush=True)
    sys.stdin.read()
"""

PUBLISHING = """
from flask import Flask
from flask_sse import sse
app = Flask("tests")
app.config["REDIS_URL"] = "memory://"
for _ in range(2):
    with app.test_request_context(environ_overrides={"wsgi.multiprocess": True}):
        sse.publish("x")
print("published")
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files of this test's processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@contextmanager
def running(code: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that asks, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", code, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    """Return the next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_first_process_has_no_sibling() -> None:
    """The second one has, as long as the first one lives; another name is independent."""
    with running(ASKING, "a") as first:
        assert answer(first) == "False"
        with running(ASKING, "a") as second, running(ASKING, "b") as other:
            assert answer(second) == "True"
            assert answer(other) == "False"
    with running(ASKING, "a") as third:
        assert answer(third) == "False"


def test_a_fork() -> None:
    """A process is its child's sibling and not its own, and the child does not inherit the lock."""
    with running(FORKING, "a") as process:
        assert answer(process) == "False False"
        assert answer(process) == "True"
        # The child is still there.
        process.wait(PATIENCE)
        with running(ASKING, "a") as other:
            assert answer(other) == "False"


def test_a_file_that_can_not_be_opened(own_folder: Path) -> None:
    """Then nothing is known, and nothing is raised."""
    (own_folder / f"flask-sse-{os.getuid()}.lock").mkdir()
    with running(ASKING, "a") as process:
        assert answer(process) == "None"


def test_memory_where_nothing_is_known(own_folder: Path) -> None:
    """If a server says that it has several processes, nobody knows, and a warning is logged."""
    with running(PUBLISHING, "") as process:
        assert answer(process) == "published"
    (own_folder / f"flask-sse-{os.getuid()}.lock").unlink()
    (own_folder / f"flask-sse-{os.getuid()}.lock").mkdir()
    with running(PUBLISHING, "") as process:
        assert "this server may run several" in answer(process)
        assert answer(process) == "published"
