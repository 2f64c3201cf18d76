"""How the site shows the benchmark's results."""

import os
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest

from tests.benchmarks.report import BUSY, Figure, Rounds, Section, write
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

_PAGE = """
Measured
========

.. benchmark-chart:: cpu_us
   :unit: µs

   Less is better.

.. benchmark-chart:: burst_per_s
   :highest-first:

   More is better.

.. benchmark-chart:: kib
   :part: scale
   :variant: 10,000 clients

   Memory.

.. benchmark-chart:: busy_p99_ms
   :part: busy

   Busy.

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


def test_variant() -> None:
    """One variant is shown without its name, and no other variant is."""
    rounds = {"one, 1,000 clients": [], "one, 10,000 clients": [{"kib": 1.0}], "two": []}
    assert benchmark.of_variant(rounds, "10,000 clients") == {"one": [{"kib": 1.0}]}
    assert benchmark.of_variant(rounds, "0 clients") == {}


def test_chart_escapes_what_it_shows() -> None:
    """Names and captions can't become markup."""
    drawn = benchmark.draw({"<b>": 1.0}, "&", '"><script>')
    assert "<script>" not in drawn
    assert "<b>" not in drawn


def test_plain_names() -> None:
    """Systems have their full names, even if a text names two, or a variant of one."""
    text = "flask-sse-2, 100 channels / flask-sse-2-sync, 100 channels"
    plain = "Flask-SSE 2 (gevent), 100 channels / Flask-SSE 2 (sync), 100 channels"
    assert benchmark.plain(text) == plain
    assert benchmark.plain("nchan / floor") == "nchan / floor (plain C)"
    assert benchmark.plain("my-flask-sse-1 on all floors") == "my-flask-sse-1 on all floors"


@pytest.mark.parametrize("measured", [True, False])
def test_page(tmp_path: Path, measured: bool) -> None:
    """The page has table and charts once there are figures, and says if there are none.

    A part without measurements has no chart. The best system is on top, whether more or less is
    better, and all have their full names.
    """
    _write_page(tmp_path)
    if measured:
        rounds = Rounds()
        rounds.add("flask-sse-2", {"cpu_us": 12.5, "burst_per_s": 1e6})
        rounds.add("flask-sse-1", {"cpu_us": 125.0, "burst_per_s": 1e4})
        section = Section("Heading", "Text.", rounds.table([Figure("cpu_us", "CPU", 1)]))
        path = tmp_path / "performance-table.rst"
        write(path, [section], ["a machine"], {"side_by_side": rounds.rounded()})
    text = _build(tmp_path)
    assert ("a machine" in text) == measured
    assert (text.count('<rect class="bar') == 4) == measured
    assert (text.count('<rect class="bar ours" x="0" y="22"') == 2) == measured
    assert ("<p>Flask-SSE 2 (gevent)</p>" in text) == measured
    assert "flask-sse-1" not in text
    assert ('<table class="figures' in text) == measured
    assert ("has not been run yet" in text) != measured


def test_page_with_all_parts(tmp_path: Path) -> None:
    """Each chart has the bars of its own part, and this code's systems are marked in all."""
    compared, scale, busy = Rounds(), Rounds(), Rounds()
    for name in ("flask-sse-2", "flask-sse-2-gthread", "flask-sse-2-sync", "nchan"):
        compared.add(name, {"cpu_us": 12.5})
        scale.add(f"{name}, 1,000 clients", {"kib": 14.0})
        scale.add(f"{name}, 10,000 clients", {"kib": 15.0})
    busy.add("flask-sse-2-sync", {"busy_p50_ms": 16.0, "busy_p99_ms": 49.0})
    busy.add("flask-sse-1", {"busy_p50_ms": 292.0, "busy_p99_ms": 408.0})
    figures = {"side_by_side": compared, "scale": scale, "busy": busy}
    _write_page(tmp_path)
    write(
        tmp_path / "performance-table.rst",
        [Section("Busy", "Text.", busy.table(BUSY))],
        ["a machine"],
        {part: rounds.rounded() for part, rounds in figures.items()},
    )
    charts = [chart.partition("</figure>")[0] for chart in _build(tmp_path).split("<figure")[1:]]
    assert [chart.count('<rect class="bar') for chart in charts] == [4, 4, 2]
    assert [chart.count('class="bar ours"') for chart in charts] == [3, 3, 1]
    assert "clients" not in charts[1]


def _write_page(folder: Path) -> None:
    (folder / "index.rst").write_text(_PAGE)
    (folder / "conf.py").write_text(
        'extensions = ["benchmark"]\nexclude_patterns = ["performance-table.rst"]\n'
    )


def _build(folder: Path) -> str:
    path = str(ROOT / "docs" / "_extensions")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-n", "-W", str(folder), str(folder / "html")],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=4 * PATIENCE,
    )
    return (folder / "html" / "index.html").read_text(encoding="utf-8")
