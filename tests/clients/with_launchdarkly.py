"""launchdarkly-eventsource, which reconnects by itself if its strategy says so."""

import sys

from ld_eventsource import SSEClient
from ld_eventsource.config import ErrorStrategy, RetryDelayStrategy

from tests.clients.report import report


def main(url: str) -> None:
    """Follow a stream for ever, with short delays, since this client ignores `retry`."""
    client = SSEClient(
        url,
        initial_retry_delay=0.05,
        retry_delay_strategy=RetryDelayStrategy.default(max_delay=0.1),
        error_strategy=ErrorStrategy.always_continue(),
    )
    for event in client.events:
        report(event.event, event.data, event.last_event_id or "")


if __name__ == "__main__":
    main(sys.argv[1])
