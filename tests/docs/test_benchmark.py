"""How the site shows what the benchmark has measured."""

import os
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest

from tests.benchmarks.report import Figure, Rounds, Section, write
from tests.support.servers import ROOT

_PAGE = """
Measured
========

.. benchmark-chart:: cpu_us
   :unit: µs

   Less is better.

.. benchmark-tables::
"""


def test_medians() -> None:
    """Each system has the median of its rounds, and the lowest comes first."""
    rounds = {
        "slow": [{"cpu_us": 100.0}, {"cpu_us": 90.0}, {"cpu_us": 500.0}],
        "fast": [{"cpu_us": 10.0}, {"kib": 1.0}],
        "other": [{"kib": 7.0}],
    }
    assert list(benchmark.medians(rounds, "cpu_us").items()) == [("fast", 10.0), ("slow", 100.0)]


def test_chart_escapes_what_it_shows() -> None:
    """Names and captions can't become markup."""
    drawn = benchmark.draw({"<b>": 1.0}, "&", '"><script>')
    assert "<script>" not in drawn
    assert "<b>" not in drawn


@pytest.mark.parametrize("measured", [True, False])
def test_page(tmp_path: Path, measured: bool) -> None:
    """The page has table and chart once there are figures, and says if there are none."""
    (tmp_path / "index.rst").write_text(_PAGE)
    (tmp_path / "conf.py").write_text(
        'extensions = ["benchmark"]\nexclude_patterns = ["performance-table.rst"]\n'
    )
    if measured:
        rounds = Rounds()
        rounds.add("flask-sse-2", {"cpu_us": 12.5})
        rounds.add("flask-sse-1", {"cpu_us": 125.0})
        section = Section("Heading", "Text.", rounds.table([Figure("cpu_us", "CPU", 1)]))
        path = tmp_path / "performance-table.rst"
        write(path, [section], ["a machine"], {"side_by_side": rounds.rounded()})
    text = _build(tmp_path)
    assert ("a machine" in text) == measured
    assert (text.count('<rect class="bar') == 2) == measured
    assert ('class="bar ours"' in text) == measured
    assert ("has not been run yet" in text) != measured


def _build(folder: Path) -> str:
    path = str(ROOT / "docs" / "_extensions")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-n", "-W", str(folder), str(folder / "html")],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=100,
    )
    return (folder / "html" / "index.html").read_text(encoding="utf-8")
