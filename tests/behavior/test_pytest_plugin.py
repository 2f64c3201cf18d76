"""The pytest plugin in the projects of others, whether they use it or not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.waiting import PATIENCE

_PATCHES_FIRST: Final = """
import sys

imported = {name.partition(".")[0] for name in sys.modules}

from gevent import monkey

monkey.patch_all()
"""
_UNDER_GEVENT: Final = """
from conftest import imported, monkey

def test_nothing_was_imported_before():
    assert "_flask_sse_pytest" in imported
    assert not imported & {"flask", "flask_sse", "gevent", "redis", "ssl", "werkzeug"}

def test_a_stream(sse_harness):
    from flask import Flask
    from flask_sse import sse

    app = Flask(__name__)
    app.register_blueprint(sse, url_prefix="/stream")
    stream = sse_harness(app).open()
    with app.app_context():
        sse.publish("hello")
    assert stream.get().data == "hello"
    assert monkey.is_module_patched("threading")
"""
_WITH_AND_WITHOUT: Final = """
def test_without():
    pass

def test_with(sse_harness):
    pass
"""


def run_pytest(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest in a project, with warnings as errors."""
    # Other plugins that are installed here, such as that of anyio, import ssl.
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p flask_sse"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, **alone, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )


def test_gevent_may_patch_first(tmp_path: Path) -> None:
    """Nothing is imported before a project's `conftest.py`, and the fixture works under gevent."""
    (tmp_path / "conftest.py").write_text(_PATCHES_FIRST)
    (tmp_path / "test_stream.py").write_text(_UNDER_GEVENT)
    # Coverage would take the greenlets for threads, see `tests.support.processes`.
    done = run_pytest(tmp_path, COVERAGE_PROCESS_CONFIG="")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", ["flask_sse.py", "flask_sse/__init__.py"])
def test_a_module_of_the_same_name(tmp_path: Path, name: str) -> None:
    """A module with the name of the package stops only the tests that use the fixture."""
    module = tmp_path / name
    module.parent.mkdir(exist_ok=True)
    # People name an application like what it tries out.
    module.write_text("from flask_sse import sse")
    (tmp_path / "test_both.py").write_text(_WITH_AND_WITHOUT)
    done = run_pytest(tmp_path)
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert f"but Python finds {module} under that name; rename that module" in done.stdout


def test_a_package_that_is_missing(tmp_path: Path) -> None:
    """If the package can't be imported for another reason, the error is that one."""
    (tmp_path / "conftest.py").write_text("import sys; sys.modules['redis'] = None")
    (tmp_path / "test_both.py").write_text(_WITH_AND_WITHOUT)
    done = run_pytest(tmp_path)
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "import of redis halted" in done.stdout
    assert "rename that module" not in done.stdout
