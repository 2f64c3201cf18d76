"""The tables: medians over the rounds, ratios between systems, printed and for the docs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from .scenarios import Figures

Rows = Sequence[Sequence[str]]


class Figure(NamedTuple):
    """A figure: its name in :data:`.scenarios.Figures`, its heading, how many decimals it has."""

    key: str
    heading: str
    decimals: int


SIDE_BY_SIDE: Final = (
    Figure("cpu_us", "CPU µs per delivery", 1),
    Figure("p50_ms", "p50 ms", 1),
    Figure("p99_ms", "p99 ms", 1),
    Figure("burst_per_s", "burst: deliveries/s", 0),
    Figure("burst_cpu_us", "burst: CPU µs per delivery", 2),
    Figure("pipe_per_s", "burst in one write: deliveries/s", 0),
    Figure("kib", "KiB per client", 1),
    Figure("connect_ms", "CPU ms per connection", 2),
    Figure("publish_per_s", "sse.publish() calls/s", 0),
    Figure("redis_pubsub", "Redis pubsub connections", 0),
    Figure("redis_normal", "Redis other connections", 0),
    Figure("redis_cpu_us", "Redis CPU µs per delivery", 1),
    Figure("server_busy", "server busy %", 0),
    Figure("load_busy", "load generator busy %", 0),
)
SCALE: Final = (
    Figure("cpu_us", "CPU µs per delivery", 1),
    Figure("p50_ms", "p50 ms", 1),
    Figure("p99_ms", "p99 ms", 1),
    Figure("kib", "KiB per client", 1),
    Figure("connect_ms", "CPU ms per connection", 2),
    Figure("load_busy", "load generator busy %", 0),
)
CHANNELS: Final = (
    Figure("cpu_us", "CPU µs per event", 1),
    *SCALE[1:-1],
    Figure("redis_cpu_us", "Redis CPU µs per event", 1),
    Figure("server_busy", "server busy %", 0),
    Figure("load_busy", "load generator busy %", 0),
)
BUSY: Final = (
    Figure("busy_p50_ms", "p50 ms", 1),
    Figure("busy_p99_ms", "p99 ms", 1),
    Figure("busy_views_per_s", "views/s", 1),
    Figure("server_busy", "server busy %", 0),
    Figure("load_busy", "load generator busy %", 0),
)
_COMPARED: Final = (
    "cpu_us",
    "p99_ms",
    "burst_per_s",
    "pipe_per_s",
    "burst_cpu_us",
    "kib",
    "connect_ms",
    "publish_per_s",
)

_NEGLIGIBLE: Final = 0.01
"""What is less is nothing, as the floor's memory for a client, and nothing to divide by."""


@dataclass
class Rounds:
    """The figures of every round, by what was measured."""

    figures: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, name: str, figures: Figures) -> None:
        """Add one round's figures."""
        self.figures.setdefault(name, []).append(figures)

    def median(self, name: str, key: str) -> float | None:
        """Return the median of one figure."""
        values = [figures[key] for figures in self.figures.get(name, ()) if key in figures]
        return median(values) if values else None

    def ratio(self, name: str, reference: str, key: str) -> float | None:
        """Return the median of the rounds' ratios: what disturbed a round disturbed both sides."""
        pairs = zip(self.figures.get(name, ()), self.figures.get(reference, ()), strict=False)
        ratios = [
            one[key] / other[key]
            for one, other in pairs
            if key in one and other.get(key, 0.0) > _NEGLIGIBLE
        ]
        return median(ratios) if ratios else None

    def rounded(self) -> dict[str, list[Figures]]:
        """Return every round's figures, without the digits that mean nothing."""
        return {
            name: [{key: round(value, 4) for key, value in figures.items()} for figures in rounds]
            for name, rounds in self.figures.items()
        }

    def table(self, columns: Sequence[Figure]) -> Rows:
        """Return the medians, a column for each thing measured, the first figure with its range."""
        rows = [["", *self.figures]]
        for column in columns:
            cells = [
                _number(self.median(name, column.key), column.decimals) for name in self.figures
            ]
            rows.append([column.heading, *cells])
        rows[1][1:] = [
            cell + self._range(name, columns[0])
            for cell, name in zip(rows[1][1:], self.figures, strict=True)
        ]
        return rows

    def grid(
        self,
        figure: Figure,
        names: Sequence[str],
        variants: Sequence[str],
        instead: Mapping[str, str],
    ) -> Rows:
        """Return the medians of one figure, a row for each name, a column for each variant of it.

        :param instead: by variant, what stands in the place of a figure that is missing.
        """
        rows = [["", *variants]]
        for name in names:
            medians = [self.median(varied(name, variant), figure.key) for variant in variants]
            if any(value is not None for value in medians):
                cells = zip(medians, variants, strict=True)
                rows.append([name, *(_cell(one, figure, instead.get(of)) for one, of in cells)])
        return rows

    def ratio_grid(
        self, figure: Figure, names: Sequence[str], variants: Sequence[str], reference: str
    ) -> Rows:
        """Return the ratios of one figure to that of the reference, laid out as in `grid`."""
        rows = [["", *variants]]
        for name in names:
            ratios = [
                self.ratio(varied(name, variant), varied(reference, variant), figure.key)
                for variant in variants
            ]
            if any(ratio is not None for ratio in ratios):
                rows.append([name, *(_number(ratio, 2) for ratio in ratios)])
        return rows

    def ratios(self, pairs: Sequence[tuple[str, str]], columns: Sequence[Figure]) -> Rows:
        """Return the first of each pair divided by the second, as far as both were measured."""
        known = [pair for pair in pairs if pair[0] != pair[1] and self.figures.keys() >= {*pair}]
        if not known:
            return []
        compared = [column for column in columns if column.key in _COMPARED]
        return [
            ["", *(f"{name} / {reference}" for name, reference in known)],
            *(
                [column.heading, *(_number(self.ratio(*pair, column.key), 2) for pair in known)]
                for column in compared
            ),
        ]

    def _range(self, name: str, column: Figure) -> str:
        """Return the lowest and the highest value where there are several."""
        values = [figures[column.key] for figures in self.figures[name]]
        if len(values) < 2:
            return ""
        return f" ({min(values):.{column.decimals}f}-{max(values):.{column.decimals}f})"


def varied(name: str, variant: str) -> str:
    """Return the name for one of a system's variants."""
    return f"{name}, {variant}"


def transposed(rows: Rows) -> Rows:
    """Exchange rows and columns, for tables of many systems and few figures."""
    return list(zip(*rows, strict=True))


class Section(NamedTuple):
    """A table under a heading, with what has to be known to read it."""

    heading: str
    text: str
    rows: Rows


def as_text(sections: Sequence[Section]) -> str:
    """Lay the tables out for a terminal."""
    return "\n\n".join(
        f"{heading}\n{_aligned(rows)}"
        for heading, _, rows in sections
        if len(rows) > 1 and len(rows[0]) > 1
    )


def as_rst(sections: Sequence[Section], about: Sequence[str]) -> str:
    """Lay the tables out for the documentation, to be included there."""
    parts = [
        ".. Written by ``make bench``; not to be edited by hand.",
        "\n".join(f"* {line}" for line in about),
    ]
    for heading, text, rows in sections:
        if len(rows) > 1 and len(rows[0]) > 1:
            parts += [f".. rubric:: {heading}", text, _list_table(rows)]
    return "\n\n".join(parts) + "\n"


def write(
    path: Path, sections: Sequence[Section], about: Sequence[str], measured: Mapping[str, object]
) -> None:
    """Write the tables to ``path``, and every round's figures beside it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_rst(sections, about), encoding="utf-8")
    text = json.dumps({"about": list(about), **measured}, indent=1)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def _aligned(rows: Rows) -> str:
    """Align the columns, the names to the left and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _list_table(rows: Rows) -> str:
    """Lay out one table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for first, *others in rows:
        lines.append(f"   * - {first}".rstrip())
        lines += [f"     - {cell}".rstrip() for cell in others]
    return "\n".join(lines)


def _cell(value: float | None, figure: Figure, instead: str | None) -> str:
    """Write a figure, or what stands in its place."""
    return instead if value is None and instead else _number(value, figure.decimals)


def _number(value: float | None, decimals: int) -> str:
    """Write a number, or that there is none."""
    return "n/a" if value is None else f"{value:,.{decimals}f}"
