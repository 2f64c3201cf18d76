"""Writes ``llms.txt``, a list of the pages, and ``llms-full.txt``, with all their text.

https://llmstxt.org/ describes both. The text is Sphinx's output, so it includes the
docstrings, the examples and the settings, which the sources of the pages only name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.builders.text import TextBuilder
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.text import TextTranslator
from sphinx_design.tabs import sd_tab_input, sd_tab_label
from summaries import summary

_LIST: Final = "llms.txt"
_TEXT: Final = "llms-full.txt"


class Section(NamedTuple):
    """The pages under one caption of the table of contents."""

    caption: str
    pages: list[str]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.connect("build-finished", _write)
    # sphinx-design writes tabs for browsers only.
    app.registry.add_translation_handlers(sd_tab_input, text=(_skip, None))
    heading = (TextTranslator.visit_rubric, TextTranslator.depart_rubric)
    app.registry.add_translation_handlers(sd_tab_label, text=heading)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or not isinstance(app.builder, StandaloneHTMLBuilder):
        return
    root = app.config.root_doc
    contents = list(_contents(app.env.get_doctree(root)))
    folder = Path(app.outdir)
    listed = "\n\n".join([_head(app), *(_section(app, section) for section in contents)])
    (folder / _LIST).write_text(listed + "\n", encoding="utf-8")
    names = [root, *(name for section in contents for name in section.pages)]
    text = "\n\n\n".join(_as_text(app, name) for name in names)
    (folder / _TEXT).write_text(text + "\n", encoding="utf-8")


def _contents(document: nodes.document) -> Iterator[Section]:
    for tree in document.findall(addnodes.toctree):
        yield Section(tree["caption"], list(tree["includefiles"]))


def _head(app: Sphinx) -> str:
    about = summary(app.env.get_doctree(app.config.root_doc))
    return (
        f"# {app.config.project}\n\n> {about}\n\n"
        f"All pages in one file: {app.config.html_baseurl}{_TEXT}"
    )


def _section(app: Sphinx, section: Section) -> str:
    lines = [f"## {section.caption}", ""]
    for name in section.pages:
        title = app.env.titles[name].astext()
        url = app.config.html_baseurl + app.builder.get_target_uri(name)
        lines.append(f"- [{title}]({url}): {summary(app.env.get_doctree(name))}")
    return "\n".join(lines)


def _skip(translator: TextTranslator, node: nodes.Element) -> None:
    raise nodes.SkipNode


def _as_text(app: Sphinx, name: str) -> str:
    """Return a page as the text builder writes it."""
    builder = TextBuilder(app, app.env)
    builder.init()
    document = app.env.get_doctree(name)
    app.env.apply_post_transforms(document, name)
    translator = builder.create_translator(document, builder)
    assert isinstance(translator, TextTranslator)
    document.walkabout(translator)
    return translator.body.strip()
