"""The body of a stream's response: read by the server, or written past it.

A body belongs to the one thread or greenlet in which the server serves its client.
"""

import io
import logging
import random
import socket
import threading
from typing import Final

from flask_sse import _gunicorn, _sockets
from flask_sse._caretaker import Caretaker
from flask_sse._client import Client
from flask_sse._hub import CONFIRM_WITHIN, Hub
from flask_sse._message import COMMENT
from flask_sse._settings import Settings
from flask_sse._subscriber import Subscriber

_log: Final = logging.getLogger("flask_sse")

_RETRY: Final = 3_000


class Streams:
    """What the open streams of an application share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.caretaker = Caretaker(settings.keepalive)
        self._places = (
            None if settings.max_clients is None else threading.Semaphore(settings.max_clients)
        )
        self._full = False

    def enter(self) -> bool:
        """Take one of the ``SSE_MAX_CLIENTS`` places, if there is one."""
        entered = self._places is None or self._places.acquire(blocking=False)
        if not entered and not self._full:
            _log.warning("SSE_MAX_CLIENTS is reached; further clients are told to come back")
        self._full = not entered
        return entered

    def exit(self) -> None:
        """Let another client have the place."""
        if self._places is not None:
            self._places.release()


class EventStream:
    """The file from which the server reads what it sends to one client.

    It subscribes when it is first read and not before, so that a body which the
    server never asks for leaves nothing behind.

    :param connection: The client's socket, where the server shows it.
    """

    __slots__ = (
        "_channel",
        "_chunked",
        "_connection",
        "_ended",
        "_entered",
        "_hub",
        "_streams",
        "_subscriber",
    )

    def __init__(
        self, hub: Hub, channel: bytes, streams: Streams, connection: socket.socket | None
    ) -> None:
        self._hub = hub
        self._channel = channel
        self._streams = streams
        self._connection = connection
        self._subscriber: Subscriber | None = None
        self._chunked: bool | None = None
        self._entered = False
        self._ended = False

    def fileno(self) -> int:
        """Refuse; but where gunicorn asks, it is safe to write past it.

        :raises io.UnsupportedOperation: always, whereupon the server reads.
        """
        if self._connection is not None and self._streams.settings.direct:
            self._chunked = _gunicorn.direct_framing(self, self._connection)
        raise io.UnsupportedOperation("an event stream has no descriptor")

    def read(self, size: int = -1) -> bytes:
        """Wait for what comes next and return all of it.

        :param size: Passed over, since frames are returned whole.
        :return: frames, a comment after a while of silence, or nothing at the end.
        """
        if self._ended:
            return b""
        subscriber = self._subscriber
        if subscriber is None:
            return self._open_or_close()
        if self._chunked is not None and isinstance(subscriber, Client):
            # The server has sent the headers by now, with what it read first.
            self._streams.caretaker.keep_alive(subscriber)
            subscriber.write_waiting(chunked=self._chunked)
            self.close()
            return b""
        batches = subscriber.take(self._streams.settings.keepalive)
        if batches is None:
            self.close()
            return b""
        return b"".join([batch.frames for batch in batches]) or COMMENT

    def close(self) -> None:
        """Unsubscribe. The server calls this however the response has ended."""
        self._ended = True
        subscriber, self._subscriber = self._subscriber, None
        try:
            if subscriber is not None:
                subscriber.end()
                self._hub.leave(self._channel, subscriber)
        finally:
            if isinstance(subscriber, Client):
                self._streams.caretaker.dismiss(subscriber)
                if _gunicorn.is_stopping():
                    _sockets.stop_reading(subscriber.connection)
            if self._entered:
                self._entered = False
                self._streams.exit()

    def _open_or_close(self) -> bytes:
        try:
            return self._open()
        except BaseException:
            # Of descriptors or threads there may be none left; of places there must be.
            self.close()
            raise

    def _open(self) -> bytes:
        self._entered = self._streams.enter()
        if not self._entered:
            return self._send_away()
        self._subscriber = subscriber = self._new_subscriber()
        self._hub.join(self._channel, subscriber)
        if not subscriber.wait_confirmed(CONFIRM_WITHIN):
            self.close()
            return self._send_away()
        retry = self._streams.settings.retry
        return COMMENT if retry is None else _retry(retry)

    def _new_subscriber(self) -> Subscriber:
        settings = self._streams.settings
        if self._connection is None:
            return Subscriber(settings.max_pending)
        _sockets.prepare(self._connection)
        client = Client(settings.max_pending, self._connection, settings.keepalive)
        self._streams.caretaker.admit(client)
        return client

    def _send_away(self) -> bytes:
        # A browser gives up for good after a 5xx, but comes back after a stream that
        # has ended (WHATWG specification, section 9.2.3). Not all at the same time.
        self._ended = True
        usual = self._streams.settings.retry or _RETRY
        return _retry(random.randint(usual, 2 * usual))


def _retry(milliseconds: int) -> bytes:
    return b"retry:%d\n\n" % milliseconds
