"""Describes each page by its first paragraph, for search engines and previews of links.

sphinxext-opengraph would also use the text after it, such as introductions to examples, but
without the examples.
"""

import re
from html import escape
from textwrap import shorten
from typing import Any, Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_LENGTH: Final = 200
"""Characters, about as many as search engines show."""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    # This runs before sphinxext-opengraph, which does not replace existing descriptions.
    app.connect("html-page-context", _describe, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def summary(document: nodes.document) -> str:
    """Return a page's first paragraph, or an empty string if it has none."""
    for paragraph in document.findall(nodes.paragraph):
        return without_lead(" ".join(paragraph.astext().split()))
    return ""


def without_lead(text: str) -> str:
    """Remove a last sentence that only introduces the text after the paragraph."""
    return re.sub(r"^(.*[.!?])\s.*:$", r"\1", text)


def _describe(
    app: Sphinx,
    page: str,
    template: str,
    context: dict[str, Any],
    document: nodes.document | None,
) -> None:
    del app, page, template
    if document is None:
        return
    text = escape(shorten(summary(document), _LENGTH, placeholder=" ..."))
    context["metatags"] += f'<meta name="description" content="{text}" />\n'
    context["meta"] = {**(context["meta"] or {}), "og:description": text}
