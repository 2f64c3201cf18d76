"""A TCP proxy through which answers take a while, as over a long distance."""

import time

from tests.support.relay import Link, Relay


class SlowProxy(Relay[Link]):
    """Relays to a port, and delays what the server sends.

    :param port: The port of the server.
    :param delay: Seconds between what the server sends and what the client receives.
    """

    def __init__(self, port: int, *, delay: float) -> None:
        super().__init__(port, Link)
        self._delay = delay

    def relay(self, link: Link, data: bytes, *, from_client: bool) -> None:
        """Send on at once to the server, and later to the client."""
        if not from_client:
            time.sleep(self._delay)
        link.send(data, from_client=from_client)
