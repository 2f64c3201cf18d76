"""The longest id of a stream, and a request as large as a browser's that sends it."""

import json
from typing import Final

from tests.support.client import StreamClient

CHANNELS: Final = [f"most-{number}" for number in range(50)]
"""As many channels with history as an id can name."""
PATH: Final = "/streams/most"
"""Where the site has a stream of them."""

HEADERS: Final = (
    "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0\r\n"
    "Accept: text/event-stream\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n"
    "Cache-Control: no-cache\r\n"
    'sec-ch-ua: "Microsoft Edge";v="131", "Chromium";v="131", "Not_A Brand";v="24"\r\n'
    "sec-ch-ua-mobile: ?0\r\n"
    'sec-ch-ua-platform: "Windows"\r\n'
    "Sec-Fetch-Dest: empty\r\n"
    "Sec-Fetch-Mode: cors\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Referer: https://example.org/projects/17/discussions/4711\r\n"
    f"Cookie: session={'x' * 600}\r\n"
)
"""What a browser sends with each request, if the site has a session."""


MOST_DIGITS: Final = 7
"""How many digits an offset can have."""
MILLIONS: Final = 4
"""How many digits it has after a million events."""


def lengthen(last_id: str, digits: int = MOST_DIGITS) -> str:
    """Return an id whose offsets have so many digits."""
    salt, *entries = last_id.split("-")
    return "-".join([salt, *[f"{entry[:5]}{'B' * digits}{entry[-7:]}" for entry in entries]])


def check(client: StreamClient) -> None:
    """Check that the stream begins, and that the id has been understood."""
    client.open().wait_events(1)
    opening = json.loads(client.events[0].data)
    assert {*opening["channels"]} == {*CHANNELS}
    # These offsets are far ahead, and an id that is cut would have other entries.
    reset = [event for event in client.wait_events(1 + len(CHANNELS)) if event.type == "sse.reset"]
    assert len(reset) == len(CHANNELS)
