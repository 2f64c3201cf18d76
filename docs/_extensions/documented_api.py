"""Facts about the documented API that autodoc can't find out by itself."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import GenericAlias
from typing import Any, get_args

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import ExtensionMetadata, stringify_annotation

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
    app.connect("autodoc-process-signature", _write_signature, priority=100)
    app.add_object_type("cli-command", "cli-command", objname="command")
    app.add_object_type("fixture", "fixture", objname="pytest fixture")
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


def _write_signature(
    app: Sphinx, what: str, name: str, obj: object, *_: object
) -> _Signature | None:
    """Write what a call returns, and the defaults and types that Flask's source has."""
    del app
    if name in _MADE_BY_FUNCTIONS:
        return "", None
    wrapped = getattr(obj, "__wrapped__", None)
    if what == "function" and wrapped is not None:
        return _write_manager(wrapped)
    if what != "class" or not isinstance(obj, type):
        return None
    text = _write_parameters(inspect.signature(obj, eval_str=True))
    return text.replace("= _sentinel", "= ...").replace("t.Any", "~typing.Any"), None


def _write_manager(function: Callable[..., object]) -> _Signature:
    """Write a function that ``contextmanager`` decorates, which does not return a generator."""
    signature = inspect.signature(function, eval_str=True)
    (value, *_) = get_args(signature.return_annotation)
    returned = GenericAlias(AbstractContextManager, (value,))
    return _write_parameters(signature), stringify_annotation(returned, "smart")


def _write_parameters(signature: inspect.Signature) -> str:
    return stringify_signature(signature, show_return_annotation=False, unqualified_typehints=True)
