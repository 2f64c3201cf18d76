"""requests-sse, which reconnects by itself."""

import sys
from datetime import timedelta

from requests_sse import EventSource

from tests.clients.report import report


def main(url: str) -> None:
    """Follow a stream for ever."""
    # Until it has read the stream's own `retry`, which it doubles, it waits twice as long as this.
    with EventSource(url, timeout=30, reconnection_time=timedelta(milliseconds=25)) as source:
        for event in source:
            report(str(event.type), str(event.data), event.last_event_id)


if __name__ == "__main__":
    main(sys.argv[1])
