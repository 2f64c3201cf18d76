"""Says of a version that it is unreleased, until it is released.

Only this extension and the configuration know; releases need no change in any page.
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata


class Unreleased(SphinxDirective):
    """A note about the version, followed by how to install it until it is released."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the note, or nothing for a release."""
        if not _is_unreleased(self.config.release):
            return []
        version = self.config.version
        begin = (
            f"Version {version} has not been released yet. Until then, ``pip`` installs an "
            "older version."
        )
        source, line = self.get_source_info()
        note = nodes.note()
        self.state.nested_parse(StringList([begin, *self.content], source=source), line - 1, note)
        return [note]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.add_directive("unreleased", Unreleased)
    app.connect("doctree-read", _mark)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _is_unreleased(release: str) -> bool:
    return "dev" in release


def _mark(app: Sphinx, document: nodes.document) -> None:
    if not _is_unreleased(app.config.release):
        return
    version = app.config.version
    for change in document.findall(addnodes.versionmodified):
        for text in list(change.findall(nodes.Text)):
            if "versionmodified" in text.parent["classes"]:
                marked = text.replace(version, f"{version} (unreleased)")
                text.parent.replace(text, nodes.Text(marked))
