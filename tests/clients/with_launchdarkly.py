"""launchdarkly-eventsource, which reconnects by itself if its strategy says so."""

import sys
from http.client import FORBIDDEN, NO_CONTENT

from ld_eventsource import SSEClient
from ld_eventsource.actions import Event, Fault
from ld_eventsource.config import ErrorStrategy, RetryDelayStrategy
from ld_eventsource.errors import HTTPStatusError

from tests.clients.report import report


def main(url: str, *, alone: bool) -> None:
    """Follow a stream to its end, with short delays, since this client ignores `retry`.

    :param alone: Leave it to the client when to stop.
    """
    client = SSEClient(
        url,
        initial_retry_delay=0.05,
        retry_delay_strategy=RetryDelayStrategy.default(max_delay=0.1),
        error_strategy=ErrorStrategy.always_continue(),
    )
    for action in client.all:
        if isinstance(action, Event):
            report(action.event, action.data, action.last_event_id or "")
        elif isinstance(action, Fault) and has_ended(action.error) and not alone:
            return


def has_ended(error: Exception | None) -> bool:
    """Return whether the server says that there is nothing more to come."""
    return isinstance(error, HTTPStatusError) and error.status in {NO_CONTENT, FORBIDDEN}


if __name__ == "__main__":
    main(sys.argv[-1], alone="alone" in sys.argv)
