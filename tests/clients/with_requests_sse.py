"""requests-sse, which reconnects by itself."""

import sys
from datetime import timedelta
from http.client import FORBIDDEN, NO_CONTENT

from requests_sse import EventSource, InvalidStatusCodeError

from tests.clients.report import report


def main(url: str) -> None:
    """Follow a stream until there is nothing more to come."""
    # Until it has read the stream's own `retry`, which it doubles, it waits twice as long as this.
    with EventSource(url, timeout=30, reconnection_time=timedelta(milliseconds=25)) as source:
        try:
            for event in source:
                report(str(event.type), str(event.data), event.last_event_id)
        except InvalidStatusCodeError as error:
            if error.status_code not in {NO_CONTENT, FORBIDDEN}:
                raise


if __name__ == "__main__":
    main(sys.argv[1])
