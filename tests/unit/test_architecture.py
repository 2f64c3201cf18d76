"""The architecture of the package: imports go downwards only."""

import ast
from pathlib import Path
from typing import Final

import flask_sse

PACKAGE: Final = Path(flask_sse.__file__).parent

ROOMS: Final[dict[str, set[str]]] = {
    "signals": {"_signals"},
    "_fixture": {"testing"},
    "testing": {"_message", "_parser", "_server", "_signals", "_state"},
    "_parser": set(),
    "history": {"_history", "_message", "_messages", "_request", "_state"},
    "__init__": {"_blueprint", "_message"},
    "_blueprint": {
        "_cli",
        "_generated",
        "_history",
        "_hub",
        "_message",
        "_messages",
        "_request",
        "_response",
        "_server",
        "_signals",
        "_visit",
    },
    "_generated": {
        "_callbacks",
        "_message",
        "_messages",
        "_owner",
        "_response",
        "_server",
        "_subscriber",
        "_visit",
    },
    "_cli": {
        "_doctor",
        "_feeds",
        "_finding",
        "_merge",
        "_message",
        "_request",
        "_settings",
        "_terminal",
    },
    "_merge": set(),
    "_feeds": {"_event_source", "_message", "_messages", "_subscriber", "_terminal"},
    "_terminal": {"_finding", "_message"},
    "_messages": {"_history", "_hub", "_message", "_owner", "_subscriber"},
    "_doctor": {
        "_doctor_redis",
        "_doctor_settings",
        "_doctor_stream",
        "_finding",
        "_history",
        "_request",
        "_settings",
        "_state",
    },
    "_request": {"_history", "_state"},
    "_state": {
        "_broker",
        "_gevent",
        "_history",
        "_hub",
        "_logs",
        "_notices",
        "_publisher",
        "_pubsub",
        "_response",
        "_settings",
    },
    "_response": {
        "_callbacks",
        "_connection",
        "_handover",
        "_history",
        "_hub",
        "_message",
        "_owner",
        "_places",
        "_server",
        "_settings",
        "_sockets",
        "_subscriber",
        "_visit",
    },
    "_handover": {"_gevent", "_syscalls"},
    "_callbacks": set(),
    "_publisher": {"_broker", "_gevent", "_history"},
    "_hub": {
        "_connection",
        "_gevent",
        "_logs",
        "_notices",
        "_outage",
        "_owner",
        "_pubsub",
        "_subscriber",
        "_watch",
    },
    "_owner": {
        "_channel",
        "_clients",
        "_connection",
        "_gevent",
        "_history",
        "_log_reader",
        "_logged",
        "_logs",
        "_message",
        "_notices",
        "_outage",
        "_poller",
        "_pubsub",
        "_server",
        "_signals",
        "_subscriber",
        "_subscription",
        "_visit",
        "_waker",
        "_watch",
    },
    "_watch": {"_gevent", "_sockets", "_subscriber"},
    "_sockets": set(),
    "_subscription": {"_gevent", "_outage", "_poller", "_pubsub", "_waker"},
    "_server": {"_gevent"},
    "_clients": {"_connection", "_poller", "_syscalls"},
    "_poller": {"_gevent", "_syscalls"},
    "_outage": {"_notices", "_signals"},
    "_logs": {
        "_channel",
        "_history",
        "_log_reader",
        "_logged",
        "_message",
        "_settings",
        "_subscriber",
        "_waker",
    },
    "_log_reader": {"_gevent", "_history", "_logged", "_page", "_pubsub", "_waker"},
    "_waker": set(),
    "_pubsub": {"_resp"},
    "_resp": set(),
    "_logged": {"_channel", "_connection", "_history", "_page", "_ring", "_subscriber"},
    "_ring": {"_history", "_page"},
    "_page": {"_history"},
    "_channel": {"_connection", "_subscriber", "_syscalls"},
    "_connection": {"_history", "_subscriber", "_syscalls", "_visit"},
    "_visit": {"_notices", "_signals"},
    "_signals": set(),
    "_notices": {"_gevent"},
    "_syscalls": set(),
    "_subscriber": {"_gevent", "_history"},
    "_gevent": set(),
    "_broker": {"_pool", "_settings"},
    "_pool": set(),
    "_doctor_stream": {"_doctor_head", "_event_source", "_finding", "_probe"},
    "_probe": {"_event_source"},
    "_doctor_head": {"_event_source", "_finding"},
    "_event_source": set(),
    "_doctor_settings": {"_finding", "_places", "_settings"},
    "_places": set(),
    "_doctor_redis": {"_finding", "_history", "_message", "_settings"},
    "_settings": set(),
    "_message": set(),
    "_history": set(),
    "_finding": set(),
}


def test_every_module_has_its_room() -> None:
    """The table names each module, in an order in which imports go downwards."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOMS.keys()
    order = list(ROOMS)
    for room, knows in ROOMS.items():
        assert all(order.index(room) < order.index(other) for other in knows), room


def test_imports_are_those_of_the_table() -> None:
    """Each module imports the modules that the table allows it, and no others."""
    found = {path.stem: _imports(path) for path in PACKAGE.glob("*.py")}
    assert found == ROOMS


def test_names() -> None:
    """No module overwrites the instance `sse`, and no module is a catch-all."""
    stems = {path.stem.strip("_") for path in PACKAGE.glob("*.py")}
    assert stems.isdisjoint({"sse", "utils", "util", "helpers", "common", "manager"})
    assert (PACKAGE / "py.typed").exists()


def test_only_the_settings_read_the_configuration() -> None:
    """`app.config` is read in one place, and passed to it in one place."""
    readers = {
        path.stem
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "config"
    }
    assert readers == {"_state"}


def _imports(path: Path) -> set[str]:
    """Return which modules of the package a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("flask_sse") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "flask_sse":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flask_sse."):
            found.add((node.module or "").split(".")[1])
    return found
