"""Waiting for descriptors in a process that gevent has patched."""

import subprocess
import sys

import pytest

from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize(
    "case", ["woken", "timed_out", "killed", "reused", "forked", "in_native_threads"]
)
def test_waiting_in_a_greenlet(case: str) -> None:
    """It ends with data or the timeout, and nothing of it is left afterwards."""
    app = ROOT / "tests" / "apps" / "polling.py"
    done = subprocess.run(
        [sys.executable, "-m", "gevent.monkey", app, case],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == b"done"
