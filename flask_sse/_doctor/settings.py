"""Checks of an application's settings, and of the limits of its processes.

Nothing blocks.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from flask_sse._doctor.finding import Finding, attempt, fail, ok, warn
from flask_sse._settings import KEYS, PREFIX, URL_KEYS, Settings
from flask_sse._streaming.limit import nine_tenths_of_descriptors

_URL: Final = " or ".join(URL_KEYS)
_LIKENESS: Final = 0.5
"""How alike two names must be, from 0 to 1, for one to be a misspelling of the other."""
_FEW_STREAMS: Final = 500
_TIMEOUTS: Final[Mapping[str, int]] = {
    "Azure Application Gateway": 20,
    "Next.js's rewrites": 30,
    "Amazon CloudFront": 30,
    "OpenShift's routers": 30,
    "HAProxy as Debian configures it": 50,
    "Heroku": 55,
    "nginx": 60,
    "Apache": 60,
    "AWS load balancers": 60,
    "Cloudflare": 100,
    "Azure App Service": 230,
}
"""Seconds after which well-known proxies close a silent connection by default."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings about the settings."""
    yield from attempt("keep-alive setting", partial(_check_keepalive, settings.keepalive))
    yield from attempt("streams", partial(_check_places, settings.max_clients))


def check_names(unknown: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding if an application has settings that look like ours but are not."""
    if unknown:
        yield warn(
            "settings",
            f"Flask-SSE has no setting {', '.join(map(_with_guess, unknown))}",
            "correct the name, or leave it if something else in your app reads it",
        )


def _with_guess(key: str) -> str:
    # Without the prefix, which all of them have.
    names = {known.removeprefix(PREFIX): known for known in KEYS if known.startswith(PREFIX)}
    name = key.upper().removeprefix(PREFIX)
    near = difflib.get_close_matches(name, names, n=1, cutoff=_LIKENESS)
    return f"{key} (did you mean {names[near[0]]}?)" if near else key


def check_url(settings: Settings) -> Finding:
    """Return the finding about a Redis URL that can be used."""
    if not settings.in_memory:
        return ok("url", _without_secrets(settings.redis_url or ""))
    workers = _workers(os.environ)
    if workers > 1:
        return fail(
            "url",
            f"memory:// keeps events inside one process, and gunicorn's environment tells it to "
            f"start {workers} workers",
            f"set {_URL} to a Redis, or start one worker",
        )
    return warn(
        "url",
        "memory:// keeps events inside one process; other processes, including this one, can't "
        "reach them",
        f"for more than development and tests, set {_URL} to a Redis",
    )


def refused(error: Exception) -> Finding:
    """Return the finding about invalid settings."""
    return fail("settings", str(error), "correct this value in the app's configuration")


def no_url() -> Finding:
    """Return the finding about a Redis URL that is missing."""
    return fail("url", f"neither {' nor '.join(URL_KEYS)} is set", f"set {_URL}")


def unusable_url(error: Exception) -> Finding:
    """Return the finding about a Redis URL that can't be used."""
    return fail("url", str(error), f"correct {_URL}, or install what it needs")


def _check_keepalive(seconds: float | None) -> Finding:
    if seconds is None:
        return warn(
            "keep-alive setting",
            "silent streams get no comments: proxies close them, and lost clients are not noticed",
            "set SSE_KEEPALIVE to 15",
        )
    shorter = [f"{name} after {limit} s" for name, limit in _TIMEOUTS.items() if limit <= seconds]
    if shorter:
        return warn(
            "keep-alive setting",
            f"a comment every {seconds:g} s; by default, silent connections are closed by "
            f"{', '.join(shorter)}",
            "lower SSE_KEEPALIVE, or raise the timeout of your proxy",
        )
    shortest = min(_TIMEOUTS.values())
    return ok(
        "keep-alive setting",
        f"a comment every {seconds:g} s; well-known proxies wait for {shortest} s or longer",
    )


def _check_places(max_clients: int | None) -> Finding:
    places = nine_tenths_of_descriptors()
    if places is None:
        return ok("streams", "this process may open any number of files")
    if max_clients is not None and max_clients > places:
        return warn(
            "streams",
            f"SSE_MAX_CLIENTS is {max_clients}, but a process with the limits of this shell can "
            f"serve only {places} streams",
            f"raise the limit of open files where the server is started, for example with "
            f"`ulimit -n {max_clients * 10 // 9 + 200}`, or lower SSE_MAX_CLIENTS",
        )
    number = max_clients or places
    found = f"a process with the limits of this shell serves up to {number} streams"
    if max_clients is None and number < _FEW_STREAMS:
        return warn("streams", found, "raise `ulimit -n` where the server is started")
    return ok("streams", found)


def _without_secrets(url: str) -> str:
    # Python can't split a URL with several addresses of IPv6.
    scheme, _, rest = re.split("[?#]", url, maxsplit=1)[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _workers(environ: Mapping[str, str]) -> int:
    """Return how many workers the environment tells gunicorn to start."""
    arguments = environ.get("GUNICORN_CMD_ARGS", "")
    given = re.search(r"(?:^|\s)(?:-w|--workers)[\s=]*(\d+)", arguments)
    number = given[1] if given else environ.get("WEB_CONCURRENCY", "")
    return int(number) if number.isdecimal() else 1
