"""The pytest plugin: one fixture, which pytest finds through the entry point ``flask_sse``.

pytest imports this module in every project, as soon as Flask-SSE is installed. So it imports
neither Flask nor Redis before a test asks for the fixture: a project's ``conftest.py`` may let
gevent patch first. That is also why it is not part of the package, which imports both.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from flask_sse.testing import Harness


@pytest.fixture
def sse_harness() -> Iterator[Callable[["Flask"], "Harness"]]:
    """Return a function like :func:`flask_sse.testing.harness`, without the ``with`` block.

    The harness ends with the test.
    """
    harness = _import_harness()
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(harness(app))


def _import_harness() -> Callable[["Flask"], AbstractContextManager["Harness"]]:
    try:
        from flask_sse.testing import harness  # noqa: PLC0415 - see above
    except ImportError as error:
        found = find_spec("flask_sse")
        origin = None if found is None else found.origin
        if origin is None or Path(origin).parents[1] == Path(__file__).parent:
            raise
        raise ImportError(
            f"sse_harness needs the package flask_sse, but Python finds {origin} under that name; "
            f"rename that module"
        ) from error
    return harness
