"""The architecture of the package: imports go downwards only."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

import flask_sse

PACKAGE: Final = Path(flask_sse.__file__).parent

FLOOR: Final = [
    "testing",
    "__init__",
    "history",
    "presence",
    "streams",
    "_blueprint",
    "_cli",
    "_doctor",
    "_state",
    "_streaming",
    "_hub",
    "_presence",
    "_redis",
    "_callbacks",
    "_log",
    "_event",
    "_system",
    "_settings",
    "signals",
]
"""The modules and folders of the package. Each may import those that come later."""

ROOMS: Final = {
    "_cli": ["commands", "sources", "channels", "output"],
    "_doctor": [
        "examination",
        "stream",
        "long_id",
        "probe",
        "response_head",
        "redis_cluster",
        "cluster_events",
        "primaries",
        "cluster_facts",
        "redis_server",
        "presence_scripts",
        "publishers",
        "control_channel",
        "redis_node",
        "examined",
        "settings",
        "finding",
    ],
    "_streaming": [
        "response",
        "overridden",
        "merged_messages",
        "messages",
        "event_stream",
        "siblings",
        "readers",
        "bridges",
        "threads",
        "gunicorn",
        "servers",
        "worker",
        "contexts",
        "feed",
        "admission",
        "limit",
        "early",
    ],
    "_hub": [
        "hub",
        "loop",
        "service",
        "control",
        "audience",
        "complaints",
        "log_queries",
        "bundle",
        "journey",
        "logged_channel",
        "replaying_channel",
        "log_batches",
        "channel",
        "parts",
        "soles",
        "group",
        "pieces",
        "clients",
        "connection",
        "hangups",
        "deadlines",
        "listener",
        "outbox",
        "shutdown",
        "subscriber",
        "batch",
    ],
    "_presence": ["seat", "roster", "announcer", "registrar", "room"],
    "_redis": [
        "upstream",
        "connections",
        "revoking",
        "publisher",
        "clients",
        "cluster.publisher",
        "cluster.pipelines",
        "cluster.route",
        "cluster.router",
        "cluster.log_reader",
        "cluster.logs",
        "cluster.subscription",
        "cluster.topology",
        "cluster.nodes",
        "server_subscription",
        "subscription",
        "attempt",
        "outage",
        "log_reader",
        "log_source",
        "primary",
        "failover",
        "pubsub",
        "sentinel",
        "pool",
        "lease_commands",
        "scripts",
        "log_commands",
        "slots",
        "cluster.errors",
        "url",
        "resp",
        "options",
    ],
    "_callbacks": ["stream_signals", "receivers", "on_close"],
    "_log": ["composite_id", "tail", "catch_up", "decoding", "ending", "page", "position"],
    "_event": ["client", "constants", "parser", "message", "revocation", "channel_name"],
    "_system": [
        "on_demand",
        "poller",
        "forks",
        "syscalls",
        "sockets",
        "gate",
        "greenlets",
        "clock",
    ],
}
"""The modules of each folder and of those in it, in such an order too."""

ORDER: Final = [
    f"{name}.{room}" if room else name for name in FLOOR for room in ROOMS.get(name, [""])
]


def test_every_module_has_its_room() -> None:
    """The lists name each module once, and the first floor stays easy to survey."""
    assert sorted(_modules()) == sorted(ORDER)
    assert len(FLOOR) <= 20


def test_imports_go_downwards() -> None:
    """Each module imports only modules that come after it."""
    for name, path in _modules().items():
        for other in _imports(path):
            assert ORDER.index(name) < ORDER.index(other), f"{name} imports {other}"


@pytest.mark.parametrize("wing", [*ROOMS, "_redis/cluster"])
def test_each_wing_says_what_it_is_for(wing: str) -> None:
    """The folder's own module is a docstring and nothing else."""
    (docstring,) = ast.parse((PACKAGE / wing / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)


def test_names() -> None:
    """No module overwrites the instance `sse`, and no module is a catch-all."""
    names = {part.strip("_") for name in _modules() for part in name.split(".")}
    assert names.isdisjoint({"sse", "utils", "util", "helpers", "common", "manager"})
    assert (PACKAGE / "py.typed").exists()


def test_the_page_names_modules_that_exist() -> None:
    """The page *Architecture* names no module that has gone."""
    page = (PACKAGE.parent / "docs" / "architecture.rst").read_text(encoding="utf-8")
    named = {name.replace("/", ".") for name in re.findall(r"``(_[a-z]+/[a-z_/]*[a-z_])``", page)}
    assert len(named) > 20
    assert named <= {*_modules()}


def test_only_the_settings_read_the_configuration() -> None:
    """`app.config` is read in one place, and passed to it in one place."""
    readers = {
        name
        for name, path in _modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "config"
    }
    assert readers == {"_state"}


def test_only_one_module_measures_time() -> None:
    """No test of an application stops our timeouts: it may replace `time.monotonic`."""
    readers = {
        name
        for name, path in _modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "monotonic")
        or (isinstance(node, ast.ImportFrom) and node.module == "time")
    }
    assert readers == {"_system.clock"}


def _modules() -> dict[str, Path]:
    """Return the path of each module, apart from the folders' docstrings."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.parent == PACKAGE or path.stem != "__init__"
    }


def _imports(path: Path) -> set[str]:
    """Return which modules of the package a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("flask_sse") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flask_sse"):
            module = (node.module or "").removeprefix("flask_sse").removeprefix(".")
            if module in ORDER:
                found.add(module)
            else:
                found |= {".".join(filter(None, (module, alias.name))) for alias in node.names}
    return found
