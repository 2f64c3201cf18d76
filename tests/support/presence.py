"""What tests of presence share: short times, and the members that an application sees."""

import contextlib
import threading
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import redis
from flask import Flask

from flask_sse import presence, sse
from flask_sse._presence import roster
from flask_sse._presence.room import Times
from flask_sse._redis import lease_commands
from flask_sse._state import State
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.waiting import PATIENCE, wait_until

SHORT: Final = Times(lease=2.0, renewal=0.5, absence=0.7, farewell=1.5)
"""Seconds that suit a test. The order of the usual times is kept."""


def set_times(times: Times) -> None:
    """Give all leases of this process other times, before it has any."""
    # The constant is not part of the interface, but a test can't wait for a minute each time.
    roster.TIMES = times  # type: ignore[misc]


def streams_of(app: Flask, channel: str) -> dict[str, int]:
    """Return the members of a channel, and how many streams each has."""
    with app.app_context():
        found = presence.members(channel)
    return {client: member.streams for client, member in found.items()}


class Watcher:
    """Notes the events about members of a channel, in this process."""

    def __init__(self, url: str, channel: str, **settings: object) -> None:
        self.app = Flask("watcher")
        self.app.config.update({"REDIS_URL": url, "SSE_PRESENCE": ["*"], **settings})
        self.app.register_blueprint(sse, url_prefix="/stream")
        self.events: list[tuple[str, str]] = []
        self._channel = channel
        with self.app.app_context():
            self._messages = sse.messages(channel)
        self._is_subscribed = threading.Event()
        self._thread = threading.Thread(target=self._note_all)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._publish("begin") or self._is_subscribed.is_set(), "subscribed")
        return self

    def __exit__(self, *_: object) -> None:
        while self._thread.is_alive():
            self._publish("end")
            self._thread.join(0.1)
        self.rest()

    def rest(self) -> None:
        """End its threads."""
        State.of(self.app).rest(PATIENCE)

    def wait(self, *events: tuple[str, str]) -> None:
        """Wait for these events, in any order, and no others."""
        wait_until(lambda: len(self.events) >= len(events), f"{events}, not {self.events}")
        assert sorted(self.events) == sorted(events), self.events

    def members(self) -> dict[str, int]:
        """Return the members of the channel, and how many streams each has."""
        return streams_of(self.app, self._channel)

    def wait_members(self, **members: int) -> None:
        """Wait until these are the members."""
        wait_until(lambda: self.members() == members, f"the members are {members}")

    def _publish(self, type: str) -> None:
        with contextlib.suppress(redis.RedisError), self.app.app_context():
            sse.publish("", type=type, channel=self._channel)

    def _note_all(self) -> None:
        for message in self._messages:
            self._is_subscribed.set()
            if message.type == "end":
                break
            if message.type in ("sse.join", "sse.leave"):
                assert message.data["channel"] == self._channel
                self.events.append((message.type.removeprefix("sse."), message.data["client"]))
        self._messages.close()


class Page:
    """A page of a site, which opens its stream again some time after it has lost it.

    :param pause: Seconds between the loss and the next attempt.
    """

    def __init__(self, port: int, channel: str, client: str, pause: float = 0.2) -> None:
        self._port = port
        self._path = f"/own?channel={quote(channel)}&client={quote(client)}"
        self._pause = pause
        self._stream: StreamClient | None = None
        self._has_left = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.streams = 0
        """How many streams it has had."""
        self._thread.start()
        wait_until(lambda: self.streams, "the stream begins")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def local_port(self) -> int:
        """The port of its end of the connection."""
        assert self._stream is not None
        port: int = self._stream.socket.getsockname()[1]
        return port

    def close(self) -> None:
        """Close the page."""
        self._has_left.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._has_left.is_set():
            with contextlib.suppress(OSError, AssertionError):
                self._follow()
            self._has_left.wait(self._pause)

    def _follow(self) -> None:
        with StreamClient(self._port, path=self._path) as stream:
            self._stream = stream.open()
            self.streams += 1
            stream.socket.settimeout(0.05)
            while not stream.ended and not self._has_left.is_set():
                stream.receive()


def use_presence(
    folder: Path, url: str, channel: str, admin: redis.Redis, **settings: object
) -> None:
    """Let clients of a site join a channel, stay until their lease is renewed, and leave.

    :param url: The Redis of the site and of the watcher, with the user to be tried.
    :param admin: A client that may do everything, at the Redis that has the channel.
    """
    key = lease_commands.key(channel.encode())
    site = {"REDIS_URL": url, "SSE_PRESENCE": [channel], "TIMES": SHORT, **settings}
    untyped: Any = admin
    with (
        servers.gunicorn(folder, app="tests.apps.present:app", settings=site) as served,
        Watcher(url, channel, **settings) as watcher,
        Page(served.port, channel, "alice"),
    ):
        with Page(served.port, channel, "bob"):
            watcher.wait_members(alice=1, bob=1)
            lease = untyped.hget(key, "")
            wait_until(lambda: untyped.hget(key, "") != lease, "the lease is renewed")
        watcher.wait(("join", "alice"), ("join", "bob"), ("leave", "bob"))
        assert watcher.members() == {"alice": 1}
    wait_until(lambda: not untyped.exists(key), "nothing is left")
