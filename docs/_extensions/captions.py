"""Adds the missing level to the captions in the sidebar, which are headings."""

from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_TREE = "furo_navigation_tree"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    # This runs after the theme, which makes the tree.
    app.connect("html-page-context", _add_level, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _add_level(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: object) -> None:
    del app, page, template
    tree: str = context.get(_TREE, "")
    context[_TREE] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
