"""The page on troubleshooting: its commands are run, and it quotes the doctor correctly."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT

from .blocks import Kind, read_blocks
from .conftest import BuiltSite
from .running import environment, runs, serving, shell, wait_for

_LOCAL: Final = "127.0.0.1:8000"
_CURL: Final = f"curl -N http://{_LOCAL}/stream"
_NUMSUB: Final = "redis-cli PUBSUB NUMSUB sse"
_DOCTOR: Final = f"flask sse doctor --url http://{_LOCAL}/stream"


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """Return the port of the application of the README."""
    port = free_port()
    app = folder / "app.py"
    with app.open("a", encoding="utf-8") as file:
        file.write('\napp.config["SSE_KEEPALIVE"] = 0.5\n')
    with serving(f"exec gunicorn app:app --bind {LOOPBACK}:{port}", port, folder):
        yield port


@runs(_CURL, _NUMSUB)
def test_the_first_two_commands(
    site: BuiltSite, folder: Path, port: int, shared_redis: RedisServer
) -> None:
    """They print the output on the page."""
    printed = _outputs(site)
    log = folder / "curl.log"
    # There it tells of its progress.
    curl = f"exec {_CURL.replace(_LOCAL, f'{LOOPBACK}:{port}')} 2>/dev/null"
    process = Process(["bash", "-c", curl], 0, log, environment(), folder)
    try:
        shared_redis.wait_listeners(1)
        numsub = _NUMSUB.replace("redis-cli", f"redis-cli --no-raw -p {shared_redis.port}")
        assert shell(numsub, folder) == printed[_NUMSUB]
        shell(f"curl http://{LOOPBACK}:{port}/hello", folder)
        wait_for(lambda: "\n\n" in log.read_text())
        first, *lines = log.read_text().splitlines()
        events = [line for line in lines if line not in {"", ":"}]
        assert [first, *events] == printed[_CURL].splitlines()
    finally:
        process.stop()


@runs(_DOCTOR)
def test_the_third_command(folder: Path, port: int) -> None:
    """It finds no problems."""
    command = _DOCTOR.replace(_LOCAL, f"{LOOPBACK}:{port}")
    said = shell(command, folder)
    assert "ok    keep-alive: " in said
    assert "fail" not in said


@runs("troubleshooting: text")
def test_what_the_doctor_says(site: BuiltSite) -> None:
    """The doctor has each line that the page quotes."""
    known = [*_findings()]
    quoted = [
        line
        for block in read_blocks(site.doctrees)
        if (block.page, block.language) == ("troubleshooting", "text")
        for line in block.text.splitlines()
    ]
    assert len(quoted) >= 9
    for line in quoted:
        assert any(re.fullmatch(pattern, line) for pattern in known), line


def _outputs(site: BuiltSite) -> dict[str, str]:
    """Return the output of each command on the page, according to the page."""
    blocks = [
        block.text.removeprefix("$ ").partition("\n")
        for block in read_blocks(site.doctrees)
        if (block.page, block.kind) == ("troubleshooting", Kind.CONSOLE)
    ]
    return {command: f"{output.rstrip()}\n" for command, _, output in blocks}


def _findings() -> Iterator[str]:
    """Yield a pattern for each finding in the source of the doctor."""
    for path in (ROOT / "flask_sse" / "_doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"ok", "warn", "fail"}
            ):
                check, found = map(_pattern, node.args[:2])
                yield f"{node.func.id:6}{check}: {found}"


def _pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_pattern, node.values))
    # A name alone would match everything.
    return ".*" if isinstance(node, ast.FormattedValue) else "(?!)"
