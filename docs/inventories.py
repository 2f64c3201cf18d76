"""Writes the inventories of other projects' names that this site links to.

A build finds them beside its sources and so needs no network. Each has only what is
referenced here, some of it under the name that Python has for it at run time
(``flask.blueprints.Blueprint``), which the other project's own inventory lacks.
"""

import zlib
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "_inventory"


class Name(NamedTuple):
    """Where a name is documented; a ``$`` at the end of the location stands for the name."""

    role: str
    name: str
    location: str


NAMES: Final[dict[str, tuple[Name, ...]]] = {
    "python": (
        Name("py:class", "collections.abc.Generator", "library/collections.abc.html#$"),
        Name("py:class", "collections.abc.Iterable", "library/collections.abc.html#$"),
        Name("py:class", "datetime.datetime", "library/datetime.html#$"),
        Name("py:class", "dict", "library/stdtypes.html#$"),
        Name("py:class", "int", "library/functions.html#$"),
        Name("py:class", "os.PathLike", "library/os.html#$"),
        Name("py:class", "str", "library/stdtypes.html#$"),
        Name("py:class", "typing.TypedDict", "library/typing.html#$"),
        Name("py:data", "None", "library/constants.html#$"),
        Name("py:data", "os.environ", "library/os.html#$"),
        Name("py:data", "typing.Any", "library/typing.html#$"),
        Name("py:class", "float", "library/functions.html#$"),
        Name("py:class", "list", "library/stdtypes.html#$"),
        Name("py:class", "collections.abc.Mapping", "library/collections.abc.html#$"),
        Name("py:class", "contextlib.AbstractContextManager", "library/contextlib.html#$"),
        Name("py:exception", "AssertionError", "library/exceptions.html#$"),
        Name("py:exception", "EOFError", "library/exceptions.html#$"),
        Name("py:exception", "TimeoutError", "library/exceptions.html#$"),
        Name("py:exception", "BufferError", "library/exceptions.html#$"),
        Name("py:exception", "KeyError", "library/exceptions.html#$"),
        Name("py:exception", "LookupError", "library/exceptions.html#$"),
        Name("py:exception", "TypeError", "library/exceptions.html#$"),
        Name("py:exception", "ValueError", "library/exceptions.html#$"),
        Name("py:function", "dataclasses.dataclass", "library/dataclasses.html#$"),
        Name("py:module", "fnmatch", "library/fnmatch.html#module-$"),
        Name("py:method", "generator.close", "reference/expressions.html#$"),
    ),
    "flask": (
        Name("py:attribute", "flask.Flask.config", "api/#$"),
        Name("py:class", "flask.Blueprint", "api/#$"),
        Name("py:class", "flask.app.Flask", "api/#flask.Flask"),
        Name("py:class", "flask.testing.FlaskClient", "api/#$"),
        Name("py:class", "flask.blueprints.Blueprint", "api/#flask.Blueprint"),
        Name("py:class", "flask.json.provider.JSONProvider", "api/#$"),
        Name("py:class", "flask.wrappers.Response", "api/#flask.Response"),
        Name("py:function", "flask.abort", "api/#$"),
        Name("py:function", "flask.url_for", "api/#$"),
        Name("py:method", "flask.Blueprint.before_request", "api/#$"),
        Name("py:method", "flask.Flask.app_context", "api/#$"),
        Name("py:method", "flask.Flask.register_blueprint", "api/#$"),
        Name("py:method", "flask.Response.call_on_close", "api/#$"),
    ),
    "itsdangerous": (
        Name("py:class", "itsdangerous.url_safe.URLSafeTimedSerializer", "url_safe/#$"),
    ),
    "blinker": (Name("py:class", "blinker.base.NamedSignal", "#blinker.NamedSignal"),),
    "werkzeug": (
        Name("py:class", "werkzeug.test.TestResponse", "test/#$"),
        Name("py:exception", "werkzeug.exceptions.BadRequest", "exceptions/#$"),
    ),
    "redis": (
        Name("py:class", "redis.StrictRedis", "connections.html#redis.Redis"),
        Name("py:class", "redis.client.Redis", "connections.html#redis.Redis"),
        Name("py:exception", "redis.exceptions.ConnectionError", "exceptions.html#$"),
        Name("py:exception", "redis.exceptions.NoPermissionError", "exceptions.html#$"),
        Name("py:exception", "redis.exceptions.RedisError", "exceptions.html#$"),
    ),
}


def encode(project: str) -> bytes:
    """Return the inventory of one project, in version 2 of Sphinx's format."""
    head = (
        f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = [f"{name.name} {name.role} 1 {name.location} -\n" for name in NAMES[project]]
    return head.encode() + zlib.compress("".join(lines).encode(), 9)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for project in NAMES:
        (FOLDER / f"{project}.inv").write_bytes(encode(project))


if __name__ == "__main__":
    main()
