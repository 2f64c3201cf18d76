"""Whether several processes serve an application whose Redis is embedded in each of them.

It can be called from any thread, and does not wait for other processes.
"""

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flask import Flask

from flask_sse._streaming import servers

_log: Final = logging.getLogger("flask_sse")

_files: Final[dict[int, int]] = {}
"""The descriptor of the locked file, by process: a fork copies descriptors, but no locks.

It is never closed, since that would release all locks of the process (fcntl(2)).
"""


def refuse_several_processes(app: Flask, environ: Mapping[str, Any], *, has_looked: bool) -> bool:
    """Refuse to serve an application in several processes, or warn once of what may be several.

    :param has_looked: Whether this process has looked for others before.
    :return: Whether it has looked now or before.
    :raises RuntimeError: if this server has several processes.
    """
    several = servers.has_several_processes(environ)
    if several:
        raise RuntimeError(
            "memory:// works in one process only, but this server runs several, whose clients "
            "would miss each other's events; set REDIS_URL to a Redis, or start one worker"
        )
    if several is not None or app.testing or has_looked:
        return has_looked
    _warn_of_siblings(app, environ)
    return True


def _warn_of_siblings(app: Flask, environ: Mapping[str, Any]) -> None:
    # ProxyFix replaces the server's port.
    port = environ.get("werkzeug.proxy_fix.orig", environ).get("SERVER_PORT")
    # Processes of the same server have the same parent and the same port.
    found = has_sibling(f"{os.getppid()} {port} {app.root_path} {app.import_name}")
    if found:
        _log.warning(
            "memory:// works in one process only, but another process of this server uses it for "
            "the same application, and their clients miss each other's events; set REDIS_URL to "
            "a Redis, or start one worker"
        )
    elif found is None and environ.get("wsgi.multiprocess"):
        _log.warning(
            "memory:// works in one process only, but this server may run several, whose clients "
            "would miss each other's events; if it does, set REDIS_URL to a Redis, or start one "
            "worker"
        )


def has_sibling(name: str) -> bool | None:
    """Whether another process has asked this with the same name, and has not ended since.

    The first process locks one byte of a file, which the name selects, and the system releases
    the lock when the process ends. The file stays empty, since a lock may be beyond its end.

    :return: `None` if this can't be found out.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415 - Windows has no such module

    try:
        file = _files.get(os.getpid())
        if file is None:
            file = _files.setdefault(os.getpid(), _open())
    except OSError:
        return None
    byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return None
    return False


def _open() -> int:
    path = Path(tempfile.gettempdir(), f"flask-sse-{os.getuid()}.lock")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
