"""Checks whether the longest id of an event reaches the server, in the header and in the URL.

They run in the command's thread. They wait for the server, each time with a timeout, and close
each stream as soon as it has begun.
"""

import http.client
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from flask_sse._doctor.finding import Finding, attempt, describe, ok, warn
from flask_sse._doctor.probe import Probe

LONGEST: Final = 1024
"""Bytes of an id at most, which is that of a stream with 50 channels that have history."""

_OTHERS: Final = {"X-Flask-SSE-Doctor": "0" * 1000}
"""Takes the place of a browser's other headers with its cookies, for which there must be room."""


class Way(NamedTuple):
    """A way to send an id."""

    place: str
    """Where in the request it is."""
    in_url: bool
    limits: str
    """What limits it."""


_WAYS: Final = (
    Way(
        "in the header Last-Event-ID",
        in_url=False,
        limits="large_client_header_buffers of nginx, tune.bufsize of HAProxy, "
        "LimitRequestFieldSize of Apache, --limit-request-field_size of gunicorn, buffer-size of "
        "uWSGI",
    ),
    Way(
        "in the URL as last_event_id",
        in_url=True,
        limits="large_client_header_buffers of nginx, tune.bufsize of HAProxy, LimitRequestLine of "
        "Apache, --limit-request-line of gunicorn, buffer-size of uWSGI",
    ),
)


def examine(url: str, headers: Mapping[str, str], patience: float) -> Iterator[Finding]:
    """Yield the findings about a long id.

    :param url: The URL of the stream, which can be opened without an id.
    :param patience: Seconds to wait for each answer.
    """
    for way in _WAYS:
        yield from attempt("long id", partial(_check, way, url, headers, patience))


def _check(way: Way, url: str, headers: Mapping[str, str], patience: float) -> Finding:
    refusal = _send(way, "0" * LONGEST, url, headers, patience)
    if refusal is None:
        return ok("long id", f"an id of {LONGEST:,} bytes arrives {way.place}")
    also = _send(way, "0", url, headers, patience)
    if also is not None:
        return warn(
            "long id",
            f"the answer to a short id {way.place} is {also}",
            "find out what refuses this request: a browser sends an id when it reconnects",
        )
    return warn(
        "long id",
        f"the answer to an id of {LONGEST:,} bytes {way.place} is {refusal}; a stream of many "
        f"channels has such ids, and an EventSource gives up for good",
        f"raise the limit that is too low: {way.limits}",
    )


def _send(way: Way, text: str, url: str, headers: Mapping[str, str], patience: float) -> str | None:
    """Open a stream with an id; return what happens instead, if it does not open."""
    sent = {**_OTHERS, **headers}
    if way.in_url:
        url += f"{'&' if urlsplit(url).query else '?'}{urlencode({'last_event_id': text})}"
    else:
        sent["Last-Event-ID"] = text
    with Probe(url, sent) as probe:
        if not probe.wait_head(patience) or probe.stream is None:
            return "missing" if probe.error is None else f"missing ({describe(probe.error)})"
        if probe.stream.status == http.client.OK:
            return None
        return f"{probe.stream.status} {probe.stream.reason}"
