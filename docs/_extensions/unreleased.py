"""Says of what is new in a version that it is unreleased, until that version is released."""

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.connect("doctree-read", _mark)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _mark(app: Sphinx, document: nodes.document) -> None:
    if "dev" not in app.config.release:
        return
    version = app.config.version
    for change in document.findall(addnodes.versionmodified):
        for text in list(change.findall(nodes.Text)):
            if "versionmodified" in text.parent["classes"]:
                marked = text.replace(version, f"{version} (unreleased)")
                text.parent.replace(text, nodes.Text(marked))
