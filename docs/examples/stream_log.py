"""Log one line for each stream when it ends, like an access log."""

import logging
from typing import Any

from flask import Flask

from flask_sse import signals

log = logging.getLogger("streams")


@signals.client_gone.connect
def log_gone(
    sender: Flask,
    *,
    channel: str,
    client: object,
    reason: str,
    duration: float,
    events_sent: int,
    bytes_sent: int,
    **extra: Any,
) -> None:
    """Log a stream that has ended, as a warning if the client was too slow."""
    log.log(
        logging.WARNING if reason == "overflow" else logging.INFO,
        "%s has left %s (%s) after %.1f s, with %d messages in %d bytes",
        client or "somebody",
        channel,
        reason,
        duration,
        events_sent,
        bytes_sent,
    )


@signals.client_refused.connect
def log_refused(sender: Flask, *, channel: str, client: object, reason: str, **extra: Any) -> None:
    """Log a client that was told to reconnect later."""
    log.warning("%s got no stream of %s (%s)", client or "somebody", channel, reason)
