"""aiohttp-sse-client2, which reconnects by itself only after a stream that has ended properly.

When a connection is lost it raises an error. The same object could connect again, but would put
what it has received of an unfinished event before the data of the next one. By default, aiohttp
ends each request after five minutes, with an error that is not one of its own.
"""

import asyncio
import sys
from datetime import timedelta

import aiohttp
from aiohttp_sse_client2.client import EventSource

from tests.clients.report import report

DELAY = timedelta(milliseconds=50)
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_read=30)


async def main(url: str) -> None:
    """Follow a stream to its end, with a new object and the last id after each lost connection."""
    last_id = ""
    while True:
        headers = {"Last-Event-Id": last_id} if last_id else {}
        try:
            async with EventSource(
                url, reconnection_time=DELAY, headers=headers, timeout=TIMEOUT
            ) as source:
                async for event in source:
                    last_id = event.last_event_id
                    report(event.type or "message", event.data, event.last_event_id)
        except (aiohttp.ClientError, ConnectionResetError, TimeoutError):
            await asyncio.sleep(DELAY.total_seconds())
        except ConnectionError:
            # The status is not 200: there is nothing more to come, or not for this user.
            return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
