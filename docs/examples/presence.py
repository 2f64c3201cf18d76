"""Who is online: the users that have a stream, in whichever worker."""

import os
import socket
import threading
import time
from collections import Counter
from typing import Any

from flask import Flask, g, request, session

from flask_sse import signals, sse

KEY = "online"
SECONDS = 60
"""For how long the users of a worker count that has been killed."""


class Presence:
    """Keeps the users of this worker's streams in Redis: a sorted set, with the time to forget."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._streams: Counter[str] = Counter()
        self._renews = False
        signals.client_connected.connect(self.come, app)
        signals.client_gone.connect(self.go, app)

    def come(self, sender: Flask, *, client: str | None, **extra: Any) -> None:
        """Note a stream. Such receivers run one after the other, with an application context."""
        if client is None:
            return
        if not self._renews:
            self._renews = True
            threading.Thread(target=self._renew_forever, daemon=True).start()
        self._streams[client] += 1
        if self._streams[client] == 1:
            self._write([client])
            self._announce()

    def go(self, sender: Flask, *, client: str | None, **extra: Any) -> None:
        """Note the end of a stream."""
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
                self._write(list(self._streams))

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
def know_the_user() -> None:
    """Say whose stream it is; the signals tell of it as ``client``."""
    g.sse_client = session.get("user")


def create_app(redis_url: str) -> Flask:
    """Make the application."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "keep this one out of the code"
    app.config["REDIS_URL"] = redis_url
    app.register_blueprint(sse, url_prefix="/stream")
    # A signal does not keep its receivers alive, but the application does.
    app.extensions["presence"] = Presence(app)

    @app.post("/login")
    def log_in() -> str:
        """Stand in for a real log-in."""
        session["user"] = request.form["user"]
        return "Welcome!"

    @app.get("/online")
    def show_online() -> list[str]:
        """Tell a page who is online when it opens its stream."""
        return online()

    return app
