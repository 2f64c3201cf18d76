"""The built documentation."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

from .blocks import EXAMPLES

# No server listens there, so a build can't download anything.
_NO_NETWORK = dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9")


class BuiltSite(NamedTuple):
    """The site, which Sphinx has built without warnings and without a network."""

    html: Path
    doctrees: Path

    def build(self, builder: str, output: Path) -> None:
        """Run another builder on the pages that have already been read."""
        # Other processes may be reading the pages.
        doctrees = shutil.copytree(self.doctrees, output / ".doctrees")
        _build(builder, output, doctrees)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    """Build the site, once for all processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    built = BuiltSite(folder / "site" / "html", folder / "site" / "doctrees")
    is_built = folder / "site is built"
    with (folder / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built.exists():
            _build("html", built.html, built.doctrees)
            is_built.touch()
    return built


@pytest.fixture
def folder(tmp_path: Path, shared_redis: RedisServer) -> Path:
    """Return a folder with the examples, whose Redis is the tests'."""
    copied = shutil.copytree(EXAMPLES, tmp_path / "examples")
    for path in copied.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("redis://localhost", shared_redis.url), encoding="utf-8")
    return copied


def _build(builder: str, output: Path, doctrees: Path) -> None:
    options = ["-n", "-W", "--keep-going", "-q", "-b", builder, "-d", str(doctrees)]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(output)],
        env={**os.environ, **_NO_NETWORK},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
