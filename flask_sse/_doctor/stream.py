"""Checks of a stream from outside, as a browser would connect to it.

They run in the command's thread. They wait for the server, each time with a timeout.
"""

import http.client
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from flask_sse._doctor import long_id
from flask_sse._doctor.finding import (
    Finding,
    Level,
    attempt,
    describe,
    fail,
    in_words,
    ok,
    soon,
    unforeseen,
    warn,
)
from flask_sse._doctor.probe import Probe
from flask_sse._doctor.response_head import (
    CONNECTIONS_OF_A_BROWSER,
    SEE_LOG,
    check_head,
    check_status,
)
from flask_sse._event import channel_name
from flask_sse._event.client import MEDIA_TYPE, StreamResponse
from flask_sse._system.clock import monotonic

_EVENTS: Final = 3
_END_WITHIN: Final = 1.0
_AS_BROWSERS: Final = {
    "Accept": MEDIA_TYPE,
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "User-Agent": "flask-sse-doctor",
}
_NO_BUFFER: Final = (
    "make it forward data at once: in nginx, set `proxy_buffering off` for this location, without "
    "`proxy_ignore_headers X-Accel-Buffering`"
)
_UNCHANGED: Final = "exclude the stream from what changes responses on their way"


class Subject(NamedTuple):
    """The stream that is examined, and what the application knows about it."""

    url: str
    headers: Mapping[str, str]
    origin: str | None
    """The origin of a page on another host that connects to it."""
    channel: str
    has_history: bool
    """Whether the channel has history."""
    has_ids: bool
    """Whether any channel has history, so that events have ids."""
    keepalive: float | None
    """Seconds of silence after which the server should send a comment."""
    patience: float
    """Seconds to wait for anything that should arrive at once."""
    publish: Callable[[str], object] | None
    """Publishes data to the channel; `None` if that would not reach the server."""
    listeners: Callable[[], int | None]
    """Returns how many processes are subscribed to the channel; `None` if Redis does not say."""

    @property
    def full_url(self) -> str:
        """The URL of the channel's stream."""
        return channel_name.in_url(self.url, self.channel)

    @property
    def all_headers(self) -> Mapping[str, str]:
        """The headers of each request."""
        cross_origin = {} if self.origin is None else {"Origin": self.origin}
        return {**_AS_BROWSERS, **cross_origin, **self.headers}

    def connect(self, **headers: str) -> Probe:
        """Connect to the stream."""
        return Probe(self.full_url, {**self.all_headers, **headers, **self.headers})


def examine(subject: Subject) -> Iterator[Finding]:
    """Yield the findings about a stream; stop if there is no stream."""
    try:
        first = subject.connect()
    except ValueError as error:
        yield _explain_error(subject.url, error)
        return
    with first as probe:
        answer = _await_answer(subject, probe)
        if isinstance(answer, Finding):
            yield answer
            return
        yield from check_head(answer, probe.headers_after or 0.0, subject.origin)
        if answer.is_readable:
            yield from _examine_body(subject, probe)
        else:
            # The remaining checks use a client that can't read this compression either.
            probe.close()
            yield from _examine_without(subject, answer.compression)
    if subject.has_history and subject.publish is not None:
        yield from attempt("Last-Event-ID", partial(_check_resumption, subject, subject.publish))
    if subject.has_ids:
        yield from long_id.examine(subject.full_url, subject.all_headers, subject.patience)


def _await_answer(subject: Subject, probe: Probe) -> StreamResponse | Finding:
    """Return the event stream, or the reason why there is none."""
    if not probe.wait_head(subject.patience) or probe.stream is None:
        return _explain_silence(subject, probe)
    return check_status(probe.stream) or probe.stream


def _examine_without(subject: Subject, compression: str) -> Iterator[Finding]:
    """Make the checks of the body without a compression."""
    with subject.connect(**{"Accept-Encoding": "gzip"}) as probe:
        answer = _await_answer(subject, probe)
        if isinstance(answer, Finding):
            yield answer
        elif answer.is_readable:
            yield from _examine_body(subject, probe)
        else:
            yield fail(
                "first byte",
                f"it can't be read: the stream is compressed with {compression}, even for a client "
                f"that accepts only gzip",
                f"exclude {MEDIA_TYPE} from what compresses it, and repeat the checks",
            )


def _examine_body(subject: Subject, probe: Probe) -> Iterator[Finding]:
    for opening in attempt("first byte", partial(_check_opening, subject, probe)):
        yield opening
        if opening.level is Level.FAIL:
            return
    yield from attempt("buffering", partial(_check_events, subject, probe))
    yield from attempt("several streams", partial(_check_several, subject))
    yield from attempt("keep-alive", partial(_check_keepalive, subject, probe))


def _check_events(subject: Subject, probe: Probe) -> Finding:
    if subject.publish is None:
        return warn(
            "buffering",
            "it can't be checked, since no event can be published from here",
            "set REDIS_URL to a Redis that the server uses too, not to memory://",
        )
    if subject.listeners() == 0:
        return fail(
            "events",
            f"the stream is open, but no process is subscribed to {subject.channel} on the Redis "
            f"of this configuration",
            "give the server and this command the same REDIS_URL; or, if the view chooses the "
            "channel, pass that channel with --channel",
        )
    return _check_buffering(subject, probe, subject.publish)


def _explain_silence(subject: Subject, probe: Probe) -> Finding:
    if probe.error is not None:
        return _explain_error(subject.url, probe.error)
    listeners = subject.listeners()
    if listeners is None:
        return fail(
            "answer",
            f"there was no answer within {subject.patience:g} s: the server's workers may all be "
            f"blocked, or something in between holds the answer back",
            f"use gunicorn, or more threads; or {_NO_BUFFER}",
        )
    if listeners:
        return fail(
            "buffering",
            f"the server has opened the stream, but nothing arrived within {subject.patience:g} s: "
            f"something in between holds it back",
            _NO_BUFFER,
        )
    return fail(
        "answer",
        f"there was no answer within {subject.patience:g} s, and the server has not subscribed: "
        f"its workers may all be blocked, by open streams or by slow views",
        "use gunicorn with a worker that hands streams over, or more threads; see Application "
        "Server in the documentation",
    )


def _explain_error(url: str, error: Exception) -> Finding:
    reason = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return fail(
            "connection",
            reason,
            "use a certificate that browsers trust, with its intermediate certificates",
        )
    if isinstance(error, ssl.SSLError):
        return fail("connection", reason, "use http:// if the server there does not use TLS")
    if isinstance(error, ValueError):
        return fail("connection", reason, "give the full URL, such as http://localhost:8000/stream")
    if isinstance(error, http.client.HTTPException):
        # We raise the base class ourselves, if there are too many redirects.
        is_http = type(error) is http.client.HTTPException
        found = reason if is_http else f"the answer is not HTTP: {type(error).__name__} {reason}"
        return fail("connection", found, "give the URL of the stream, with its port")
    if not isinstance(error, OSError):
        return unforeseen("connection", error)
    host = urlsplit(url).netloc.rpartition("@")[2]
    return fail("connection", f"{host}: {reason}", "start the server, or correct host and port")


def _check_opening(subject: Subject, probe: Probe) -> Finding:
    if probe.wait_first(subject.patience):
        if _ends_at_once(probe):
            return _explain_end_at_once(probe)
        after = probe.first_after or 0.0
        return soon("first byte", f"after {in_words(after)}", after)
    if probe.error is not None:
        return fail("first byte", f"it can't be read: {describe(probe.error)}", _UNCHANGED)
    if probe.has_ended:
        return fail("first byte", "the stream ended before it", SEE_LOG)
    if subject.listeners():
        return fail(
            "buffering",
            f"the stream has begun, but its first bytes did not arrive within {subject.patience:g} "
            f"s: something in between holds them back",
            _NO_BUFFER,
        )
    return fail(
        "first byte",
        f"none arrived within {subject.patience:g} s",
        f"check in the server's log whether it can reach its Redis; or {_NO_BUFFER}",
    )


def _ends_at_once(probe: Probe) -> bool:
    """Return whether the stream ends after its first bytes, as it does for a rejected client."""
    # A rejected client is told when to reconnect.
    seconds = _END_WITHIN if probe.parser.retry is not None else _END_WITHIN / 20
    return probe.wait(lambda: probe.has_ended, seconds)


def _explain_end_at_once(probe: Probe) -> Finding:
    if probe.error is not None:
        found = f"what follows can't be read: {describe(probe.error)}"
        return fail("first byte", found, _UNCHANGED)
    if probe.parser.retry is None:
        return fail("first byte", "the stream ends right after it", SEE_LOG)
    return fail(
        "first byte",
        f"the stream ends right after it, and asks to reconnect in {probe.parser.retry} ms: the "
        f"server is at its limit of streams, or can't reach Redis",
        "raise SSE_MAX_CLIENTS and `ulimit -n`, or see the server's log for Redis errors",
    )


def _check_buffering(subject: Subject, probe: Probe, publish: Callable[[str], object]) -> Finding:
    delays: list[float] = []
    for _ in range(_EVENTS):
        token = secrets.token_hex(8)
        published = monotonic()
        publish(token)
        if not probe.wait_event(token, subject.patience):
            if probe.error is not None:
                found = f"an event can't be read: {describe(probe.error)}"
                return fail("buffering", found, _UNCHANGED)
            if probe.has_ended:
                return fail("buffering", "the stream ended when an event arrived", SEE_LOG)
            return fail(
                "buffering",
                f"an event did not arrive within {subject.patience:g} s: something in between "
                f"holds it back",
                _NO_BUFFER,
            )
        delays.append(probe.heard - published)
    return soon("buffering", f"an event arrives after {in_words(min(delays))}", min(delays))


def _check_several(subject: Subject) -> Finding:
    """Open as many streams as a browser may, including the one that is already open."""
    with ExitStack() as open_probes:
        for number in range(2, CONNECTIONS_OF_A_BROWSER + 1):
            probe = open_probes.enter_context(subject.connect())
            is_open = probe.wait_first(subject.patience)
            problem = _explain_other(subject, probe, number, is_open=is_open)
            if problem is not None:
                return problem
    return ok("several streams", f"{CONNECTIONS_OF_A_BROWSER} at the same time are served")


def _explain_other(subject: Subject, probe: Probe, number: int, *, is_open: bool) -> Finding | None:
    which = f"of {CONNECTIONS_OF_A_BROWSER} streams at the same time, number {number}"
    if probe.error is not None and probe.stream is None:
        return fail(
            "several streams",
            f"{which} gets no connection: {probe.error}",
            "raise the connection limits of the server and the proxy",
        )
    if probe.error is not None:
        found = f"{which} can't be read: {describe(probe.error)}"
        return fail("several streams", found, _UNCHANGED)
    if probe.stream is not None and probe.stream.status != http.client.OK:
        return fail(
            "several streams",
            f"{which} is answered with {probe.stream.status} {probe.stream.reason}",
            "raise the connection limit per client, such as limit_conn of nginx, to more streams "
            "than a household or an office has open",
        )
    if is_open and _ends_at_once(probe):
        found = f"{which} ends at once"
        return fail("several streams", found, "raise SSE_MAX_CLIENTS and `ulimit -n`")
    if is_open:
        return None
    return fail(
        "several streams",
        f"{which} was not answered within {subject.patience:g} s: the open ones block the server",
        "use gunicorn with a worker that hands streams over, or more threads; see Application "
        "Server in the documentation",
    )


def _check_keepalive(subject: Subject, probe: Probe) -> Finding:
    seen = probe.parser.comments
    since = probe.heard
    limit = (subject.keepalive or 0.0) + subject.patience
    if probe.wait(lambda: probe.parser.comments > seen, limit):
        return ok("keep-alive", f"a comment after {in_words(probe.heard - since)} of silence")
    if probe.error is not None:
        return fail("keep-alive", f"it can't be read: {describe(probe.error)}", _UNCHANGED)
    if probe.ended is not None:
        silence = probe.ended - probe.heard
        configured = "none" if subject.keepalive is None else f"{subject.keepalive:g} s"
        return fail(
            "keep-alive",
            f"the connection was closed after {in_words(silence)} of silence; SSE_KEEPALIVE is "
            f"{configured}",
            f"raise the timeout of the proxy that closes it, such as proxy_read_timeout of nginx, "
            f"or set SSE_KEEPALIVE to less than {in_words(silence)}",
        )
    if subject.keepalive is None:
        return warn("keep-alive", "there are no comments", "set SSE_KEEPALIVE to 15")
    return fail(
        "keep-alive",
        f"no comment arrived within {limit:g} s, although SSE_KEEPALIVE is {subject.keepalive:g} s",
        f"give the server the same setting; otherwise {_NO_BUFFER}",
    )


def _check_resumption(subject: Subject, publish: Callable[[str], object]) -> Finding:
    before, missed = secrets.token_hex(8), secrets.token_hex(8)
    with subject.connect() as probe:
        probe.wait_first(subject.patience)
        cursor = ""
        for token in (before, missed):
            cursor = probe.parser.last_id
            publish(token)
            # Once it has arrived here, the server has it, so a later client gets it from the log.
            if not probe.wait_event(token, subject.patience):
                return fail("Last-Event-ID", "an event with an id did not arrive", SEE_LOG)
    with subject.connect(**{"Last-Event-ID": cursor}) as probe:
        if probe.wait_event(missed, subject.patience):
            return ok("Last-Event-ID", "a client that reconnects gets the events that it missed")
    return fail(
        "Last-Event-ID",
        "a client that reconnects does not get the events that it missed",
        "make the proxy forward the header, and give all processes the same SSE_HISTORY",
    )
