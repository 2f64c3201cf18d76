"""Gives each term of a definition list an anchor, and a link to it, like headings."""

from docutils import nodes
from sphinx.addnodes import glossary
from sphinx.application import Sphinx
from sphinx.util.nodes import make_id
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.connect("doctree-read", _link_terms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _link_terms(app: Sphinx, document: nodes.document) -> None:
    for term in list(document.findall(nodes.term)):
        if isinstance(term.parent.parent.parent, glossary):
            continue  # Sphinx does it itself.
        anchor = make_id(app.env, document, "term", term.astext())
        document.ids[anchor] = term
        term["ids"].append(anchor)
        term["classes"].append("term")
        link = f'<a class="headerlink" href="#{anchor}" title="Link to this term">#</a>'
        term.append(nodes.raw("", link, format="html"))
