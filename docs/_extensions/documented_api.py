"""Facts about the documented API that autodoc can't find out by itself."""

import inspect
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import ExtensionMetadata

_Signature = tuple[str, str | None]

_STORED = "flask_sse._event.message.StoredMessage"
_STORED_LABEL = "stored-form"
_INSTANCE = "flask_sse.sse"
_MADE_BY_FUNCTIONS = {
    f"flask_sse.testing.{name}" for name in ("Harness", "Published", "ReceivedMessage", "Stream")
}
"""Classes whose constructors are not public."""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.connect("missing-reference", _link_stored_message)
    app.connect("autodoc-process-docstring", _describe_instance, priority=100)
    # This runs before sphinx-autodoc-typehints, since the first result counts.
    app.connect("autodoc-process-signature", _write_class, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _link_stored_message(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | None:
    """Link the type of a stored message, which is not public, to the stored form."""
    if node["reftarget"] != _STORED:
        return None
    document, anchor, _ = env.domains.standard_domain.labels[_STORED_LABEL]
    return make_refnode(app.builder, node["refdoc"], document, anchor, contnode)


def _describe_instance(app: Sphinx, what: str, name: str, *rest: Any) -> None:
    """Take the docstring of the instance from the module that makes it."""
    del app, what
    lines: list[str] = rest[-1]
    if name == _INSTANCE:
        docs = ModuleAnalyzer.for_module("flask_sse._blueprint").find_attr_docs()
        lines[:] = docs["", "sse"]


def _write_class(app: Sphinx, what: str, name: str, obj: object, *_: object) -> _Signature | None:
    """Write a class without a return type, and a Flask default that is not Python."""
    del app
    if name in _MADE_BY_FUNCTIONS:
        return "", None
    if what != "class" or not isinstance(obj, type):
        return None
    text = stringify_signature(
        inspect.signature(obj, eval_str=True),
        show_return_annotation=False,
        unqualified_typehints=True,
    )
    return text.replace("<object object>", "..."), None
