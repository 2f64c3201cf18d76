"""A TCP proxy that delays answers, as over a long distance."""

import time

from tests.support.relay import Link, Relay


class SlowProxy(Relay[Link]):
    """Relays to a port, and delays the server's data.

    :param port: The port of the server.
    :param delay: Seconds between sending by the server and receiving by the client.
    """

    def __init__(self, port: int, *, delay: float) -> None:
        super().__init__(port, Link)
        self._delay = delay

    def relay(self, link: Link, data: bytes, *, from_client: bool) -> None:
        """Forward data to the server at once, and to the client later."""
        if not from_client:
            time.sleep(self._delay)
        link.send(data, from_client=from_client)
