"""Shows the results of the benchmark: its tables, and one figure of them as a chart.

If the benchmark has not written its files yet, the page says so. Charts without measurements
are left out.
"""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Final

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

Rounds = dict[str, list[dict[str, float]]]
"""The figures of each round, by the name of the measurement."""

_PLAIN_NAMES: Final = {
    "flask-sse-2-gthread": "Flask-SSE 2 (gthread)",
    "flask-sse-2-sync": "Flask-SSE 2 (sync)",
    "flask-sse-2": "Flask-SSE 2 (gevent)",
    "flask-sse-1": "Flask-SSE 1.0",
    "floor-python": "floor (plain Python)",
    "floor": "floor (plain C)",
}
"""Systems for which the benchmark has short names; it uses the full names of the others."""

_NAME: Final = re.compile(rf"(?<![\w-])(?:{'|'.join(_PLAIN_NAMES)})(?![\w-])")
_TABLE: Final = "performance-table.rst"
_FIGURES: Final = "performance-table.json"
# Narrow, so that the text is still readable if a phone shrinks the chart.
_WIDTH: Final = 400
_ROW: Final = 44
_BAR: Final = 14
_LONGEST: Final = 300


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.add_directive("benchmark-tables", Tables)
    app.add_directive("benchmark-chart", Chart)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


class Tables(SphinxDirective):
    """``.. benchmark-tables::``: the tables as the benchmark has written them."""

    def run(self) -> list[nodes.Node]:
        """Include the tables, if there are any."""
        table = Path(self.env.srcdir, _TABLE)
        self.env.note_dependency(str(table))
        if not table.exists():
            return [nodes.note("", nodes.paragraph(text="The benchmark has not been run yet."))]
        content = self.parse_text_to_nodes(table.read_text(encoding="utf-8"))
        for node in content:
            for each in node.findall(nodes.table):
                each["classes"] += ["figures", "colwidths-auto"]
            for text in list(_names(node)):
                text.parent.replace(text, nodes.Text(plain(text.astext())))
        return content


class Chart(SphinxDirective):
    """``.. benchmark-chart:: cpu_us``: the medians of one figure, with a bar for each system."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any] | None] = {
        "part": directives.unchanged,
        "variant": directives.unchanged_required,
        "unit": directives.unchanged_required,
        "highest-first": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        """Draw the chart, if there is data; the content is its caption."""
        source = Path(self.env.srcdir, _FIGURES)
        self.env.note_dependency(str(source))
        if not source.exists():
            return []
        parts: dict[str, Rounds] = json.loads(source.read_text(encoding="utf-8"))
        rounds = parts.get(self.options.get("part", "side_by_side"), {})
        if variant := self.options.get("variant"):
            rounds = of_variant(rounds, variant)
        values = medians(rounds, self.arguments[0])
        if not values:
            return []
        if "highest-first" in self.options:
            values = dict(reversed(values.items()))
        caption = " ".join(self.content)
        figure = (
            f'<figure class="chart">{draw(values, self.options.get("unit", ""), caption)}'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
        return [nodes.raw("", figure, format="html")]


def of_variant(rounds: Rounds, variant: str) -> Rounds:
    """Return the measurements of one variant, such as ``10,000 clients``, by system."""
    end = f", {variant}"
    return {name.removesuffix(end): each for name, each in rounds.items() if name.endswith(end)}


def medians(rounds: Rounds, key: str) -> dict[str, float]:
    """Return the median of one figure for each system that has it, lowest first."""
    values = {
        name: median(figures[key] for figures in each if key in figures)
        for name, each in rounds.items()
        if any(key in figures for figures in each)
    }
    return dict(sorted(values.items(), key=lambda item: item[1]))


def plain(text: str) -> str:
    """Replace the benchmark's short names by the full names of the systems."""
    return _NAME.sub(lambda match: _PLAIN_NAMES[match[0]], text)


def _names(node: nodes.Node) -> Iterator[nodes.Text]:
    """Return the texts that name a system: items of lists, and headings of tables."""
    for item in node.findall(nodes.list_item):
        yield from item.findall(nodes.Text)
    for row in node.findall(nodes.row):
        cells = row.children if isinstance(row.parent, nodes.thead) else row.children[:1]
        for cell in cells:
            yield from cell.findall(nodes.Text)


def draw(values: dict[str, float], unit: str, title: str) -> str:
    """Return a chart of horizontal bars as SVG, in the colors of the theme."""
    longest = max(values.values()) or 1.0
    height = _ROW * len(values)
    rows = [
        _bar(index * _ROW, name, value, value / longest, unit)
        for index, (name, value) in enumerate(values.items())
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(rows)}</svg>"
    )


def _bar(top: int, name: str, value: float, share: float, unit: str) -> str:
    width = max(1, round(share * _LONGEST))
    ours = " ours" if name.startswith("flask-sse-2") else ""
    bar = top + 22
    return (
        f'<text x="0" y="{top + 16}">{escape(plain(name))}</text>'
        f'<rect class="bar{ours}" x="0" y="{bar}" width="{width}" height="{_BAR}" rx="2"/>'
        f'<text x="{width + 8}" y="{bar + _BAR - 2}">{_figure(value)} {escape(unit)}</text>'
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
