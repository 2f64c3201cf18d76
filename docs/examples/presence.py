"""Who is online: the users with an open stream, in any worker."""

import os
import socket
import threading
import time
from collections import Counter
from typing import Any

from flask import Flask, g, request, session
from redis import RedisError

from flask_sse import signals, sse

KEY = "online"
SECONDS = 60
"""How long the users of a killed worker still count as online."""


class Presence:
    """Keeps this worker's users in a Redis sorted set, scored by the time they expire."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._streams: Counter[str] = Counter()
        self._renews = False
        signals.client_connected.connect(self.connected, app)
        signals.client_gone.connect(self.disconnected, app)

    def connected(self, sender: Flask, *, client: str | None, **extra: Any) -> None:
        """Record a new stream. Receivers run one at a time, in an application context."""
        if client is None:
            return
        if not self._renews:
            self._renews = True
            threading.Thread(target=self._renew_forever, daemon=True).start()
        self._streams[client] += 1
        if self._streams[client] == 1:
            self._write([client])
            self._announce()

    def disconnected(self, sender: Flask, *, client: str | None, **extra: Any) -> None:
        """Record that a stream has ended."""
        if client is None:
            return
        self._streams[client] -= 1
        if not self._streams[client]:
            del self._streams[client]
            sse.redis.zrem(KEY, self._member(client))
            self._announce()

    def _renew_forever(self) -> None:
        while True:
            time.sleep(SECONDS / 3)
            with self._app.app_context():
                try:
                    self._write(list(self._streams))
                except RedisError as error:
                    # The thread must survive an outage: the next round tries again.
                    self._app.logger.warning("could not renew the users online: %s", error)

    def _write(self, users: list[str]) -> None:
        until = time.time() + SECONDS
        if users:
            sse.redis.zadd(KEY, {self._member(user): until for user in users})

    def _announce(self) -> None:
        sse.publish(online(), type="presence", channel="presence")

    def _member(self, user: str) -> str:
        return f"{socket.gethostname()}/{os.getpid()}/{user}"


def online() -> list[str]:
    """Return the users that are online."""
    redis: Any = sse.redis
    redis.zremrangebyscore(KEY, 0, time.time())
    members: list[bytes] = redis.zrange(KEY, 0, -1)
    return sorted({member.decode().split("/", 2)[2] for member in members})


@sse.before_request
def identify_user() -> None:
    """Identify the user of the stream; signals pass it as ``client``."""
    g.sse_client = session.get("user")


def create_app(redis_url: str) -> Flask:
    """Create the application."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "change-me"
    app.config["REDIS_URL"] = redis_url
    app.register_blueprint(sse, url_prefix="/stream")
    # Signals hold only weak references to their receivers, so keep one here.
    app.extensions["presence"] = Presence(app)

    @app.post("/login")
    def log_in() -> str:
        """Stand in for a real login."""
        session["user"] = request.form["user"]
        return "Welcome!"

    @app.get("/online")
    def show_online() -> list[str]:
        """Tell a page who is online when it opens its stream."""
        return online()

    return app
