"""httpx-sse, which does not reconnect: the loop is the one of its documentation."""

import sys
import time
from http.client import FORBIDDEN, NO_CONTENT

import httpx
import httpx_sse

from tests.clients.report import report


def main(url: str) -> None:
    """Follow a stream until there is nothing more to come."""
    last_id = ""
    delay = 0.0
    with httpx.Client(timeout=30) as client:
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                with httpx_sse.connect_sse(client, "GET", url, headers=headers) as source:
                    if source.response.status_code in {NO_CONTENT, FORBIDDEN}:
                        return
                    for event in source.iter_sse():
                        last_id = event.id
                        if event.retry is not None:
                            delay = event.retry / 1000
                        report(event.event, event.data, event.id)
            except httpx.TransportError:
                pass
            time.sleep(delay)


if __name__ == "__main__":
    main(sys.argv[1])
