"""`streams.disconnect` in one process: which streams end, how, and what is refused."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest
from flask import Flask, Response, request
from redis.exceptions import NoPermissionError

from flask_sse import signals, sse, streams
from flask_sse._state import State
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import LocalStream, pieces_of

CONTROL: Final = "flask-sse:control"


class Site:
    """An application whose view opens streams, and the ends of its streams."""

    def __init__(self, url: str, stack: ExitStack, **settings: object) -> None:
        self.app = Flask("tests")
        self.app.config.update(REDIS_URL=url, **settings)
        self.app.register_blueprint(sse, url_prefix="/stream")
        self.app.add_url_rule("/own", view_func=self._view)
        self.gone: list[tuple[str, str | None]] = []
        self.refused: list[str] = []
        self._stack = stack
        self._stack.enter_context(signals.client_gone.connected_to(self._note, self.app))
        self._stack.enter_context(signals.client_refused.connected_to(self._note_refused, self.app))

    def open(self, *channels: str, client: str | None = None) -> LocalStream:
        """Open a stream, which is closed after the test, and read its first piece."""
        query: dict[str, Any] = {"channel": channels}
        if client is not None:
            query["client"] = client
        response = self.app.test_client().get("/own", query_string=query)
        self._stack.callback(response.close)
        assert response.status_code == 200
        return LocalStream(pieces_of(response))

    def disconnect(self, client: str | None = None, channel: str | None = None) -> int:
        """Disconnect clients."""
        with self.app.app_context():
            return streams.disconnect(client=client, channel=channel)

    def publish(self, data: object, channel: str) -> int:
        """Publish an event."""
        with self.app.app_context():
            return sse.publish(data, channel=channel)

    def _view(self) -> Response:
        arguments = request.args
        return streams.stream(arguments.getlist("channel"), client=arguments.get("client"))

    def _note(self, sender: Flask, *, reason: str, client: str | None, **extra: Any) -> None:
        self.gone.append((reason, client))

    def _note_refused(self, sender: Flask, *, reason: str, **extra: Any) -> None:
        self.refused.append(reason)


@contextmanager
def running(url: str, **settings: object) -> Iterator[Site]:
    """Return a site whose streams are closed at the end, and whose subscription ends."""
    with ExitStack() as stack:
        site = Site(url, stack, **settings)
        # Another test must not find this process on the control channel.
        stack.callback(State.of(site.app).rest, PATIENCE)
        yield site


@pytest.fixture
def site(any_redis_url: str) -> Iterator[Site]:
    """Return a site on each kind of Redis."""
    with running(any_redis_url, SSE_HISTORY={"kept*": 100}) as site:
        yield site


def rest(stream: LocalStream) -> list[str]:
    """Read a stream to its end; return the data of all its events but our own."""
    while stream.read():
        pass
    return [event.data for event in stream.parser.events if not event.type.startswith("sse.")]


def test_a_client(site: Site, channel: str) -> None:
    """All its streams end, with what has been waiting, and nobody else's."""
    first, second = site.open(channel, client="alice"), site.open("b", channel, client="alice")
    bob, nobody = site.open(channel, client="bob"), site.open(channel)
    site.publish("hello", channel)
    assert site.disconnect(client="alice") == 1
    assert rest(first) == rest(second) == ["hello"]
    wait_until(lambda: len(site.gone) == 2, "both signals are sent")
    assert site.gone == [("disconnect", "alice")] * 2
    site.publish("more", channel)
    for stream in (bob, nobody):
        assert [event.data for event in stream.events(2)] == ["hello", "more"]
    # It may come back at once.
    again = site.open(channel, client="alice")
    site.publish("again", channel)
    assert again.events(1)[0].data == "again"


def test_a_channel(site: Site, channel: str) -> None:
    """All streams with this channel and a client end, also those that have others."""
    first = site.open(channel, client="alice")
    second = site.open(channel, "kept-other", client="bob")
    stays, nobody = site.open("kept-other", client="alice"), site.open(channel)
    assert site.disconnect(channel=channel) == 1
    assert rest(first) == rest(second) == []
    site.publish("hello", "kept-other")
    site.publish("hello", channel)
    for stream in (stays, nobody):
        while not [event for event in stream.parser.events if event.data == "hello"]:
            assert stream.read()
    wait_until(lambda: len(site.gone) == 2, "both signals are sent")
    assert sorted(site.gone) == [("disconnect", "alice"), ("disconnect", "bob")]


def test_a_client_on_a_channel(site: Site, channel: str) -> None:
    """Both must match."""
    ends = site.open(channel, client="alice")
    others = [site.open("other", client="alice"), site.open(channel, client="bob")]
    assert site.disconnect(client="alice", channel=channel) == 1
    assert rest(ends) == []
    for name in ("other", channel):
        site.publish("hello", name)
    for stream in others:
        assert stream.events(1)[0].data == "hello"


def test_a_stream_that_has_not_begun(site: Site, channel: str) -> None:
    """A view has let a client in before it lost access: its stream ends, too, once it begins."""
    first = site.open(channel, client="alice")
    query = {"channel": channel, "client": "alice"}
    with site.app.test_client().get("/own", query_string=query) as response:
        assert site.disconnect(client="alice") == 1
        assert rest(first) == []
        # Nothing has been read from it before.
        assert rest(LocalStream(pieces_of(response))) == []
    wait_until(lambda: len(site.gone) + len(site.refused) == 2, "both signals are sent")
    assert {*[reason for reason, _ in site.gone], *site.refused} == {"disconnect"}
    # The next one has been checked again.
    again = site.open(channel, client="alice")
    site.publish("hello", channel)
    assert again.events(1)[0].data == "hello"


def test_nobody_is_there(site: Site, channel: str) -> None:
    """No process is told, unless it has a stream of somebody else."""
    nobody = site.open(channel)
    assert site.disconnect(client="alice") == 0
    site.open(channel, client="bob")
    assert site.disconnect(client="alice") == 1
    site.publish("hello", channel)
    assert nobody.events(1)[0].data == "hello"


def test_the_channel_is_not_for_others(site: Site, channel: str) -> None:
    """Neither browsers nor code can listen to revocations, or publish them like events."""
    app = site.app
    answer = app.test_client().get("/stream", query_string={"channel": CONTROL})
    assert answer.status_code == 400
    with app.test_request_context():
        for call in (
            lambda: sse.publish("x", channel=CONTROL),
            lambda: sse.messages(CONTROL),
            lambda: streams.stream([channel, CONTROL]),
            lambda: streams.disconnect(channel=CONTROL),
        ):
            with pytest.raises(ValueError, match="'flask-sse:control', which Flask-SSE uses"):
                call()


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_the_command_does_not_list_the_channel(
    request: pytest.FixtureRequest, kind: str, channel: str
) -> None:
    """`flask sse channels` shows what has been asked for, and nothing of our own."""
    server: RedisServer | RedisCluster = request.getfixturevalue(f"shared_{kind}")
    with running(server.url) as site:
        site.open(channel, client="alice")
        shown = site.app.test_cli_runner().invoke(args=["sse", "channels"]).stdout
    assert channel in shown
    assert CONTROL not in shown


def test_anything_may_arrive(
    shared_redis: RedisServer, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody understands ends no stream, and does not fill the log."""
    with running(shared_redis.url) as site:
        stream = site.open(channel, client="alice")
        for _ in range(10):
            for payload in (b"\xff", b"nonsense", b"{}", b"[" * 100_000, b'{"client": ["alice"]}'):
                assert shared_redis.admin.publish(CONTROL, payload) == 1
        site.publish("hello", channel)
        assert stream.events(1)[0].data == "hello"
    assert 0 < caplog.text.count("on channel 'flask-sse:control'") < 10


def test_wrong_arguments(site: Site, channel: str) -> None:
    """Each error names the argument, its value and the remedy."""
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"client": 7}, TypeError, r"client must be a str, not 7; pass str\(\)"),
        ({"client": ""}, ValueError, r"client must not be empty; leave it out"),
        ({"client": "x" * 257}, ValueError, r"at most 256 characters, not 257"),
        ({"max_age": "60"}, TypeError, r"max_age must be a number of seconds or None, not '60'"),
        ({"max_age": True}, TypeError, r"max_age must be a number of seconds or None, not True"),
        ({"max_age": 0}, ValueError, r"max_age must be more than 0 seconds, not 0; refuse"),
        ({"max_age": -5.5}, ValueError, r"max_age must be more than 0 seconds, not -5.5"),
        ({"max_age": float("inf")}, ValueError, r"max_age must be more than 0 seconds, not inf"),
    ]
    with site.app.test_request_context():
        for arguments, error, match in wrong:
            with pytest.raises(error, match=match):
                streams.stream([channel], **arguments)
        with pytest.raises(TypeError, match=r"disconnect\(\) needs client=, channel= or both"):
            streams.disconnect()


def test_an_age_of_its_own(any_redis_url: str, channel: str) -> None:
    """`max_age` takes precedence over `SSE_MAX_AGE`."""
    with running(any_redis_url, SSE_MAX_AGE=600) as site, site.app.test_request_context():
        response = streams.stream([channel], max_age=0.5)
        stream = LocalStream(pieces_of(response))
        assert rest(stream) == []
        response.close()
        wait_until(lambda: site.gone, "the signal is sent")
        assert site.gone == [("age", None)]


@pytest.fixture
def limited(shared_redis: RedisServer) -> Iterator[str]:
    """Return the URL of a user that may use all channels but that one."""
    admin = shared_redis.admin
    admin.acl_setuser(
        "limited",
        enabled=True,
        passwords=["+secret"],
        categories=["+@all"],
        keys=["*"],
        channels=["public*"],
        reset=True,
    )
    yield shared_redis.url.replace("//", "//limited:secret@")
    admin.acl_deluser("limited")


def test_redis_forbids_the_channel(
    limited: str, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams with a client are refused, with the rule in the log; others are not affected."""
    with running(limited) as site:
        nobody = site.open("public-a")
        for _ in range(2):
            refused = site.open("public-a", client="alice")
            assert refused.first.startswith(b"retry:")
            assert not refused.read()
        wait_until(lambda: len(site.refused) == 2, "both signals are sent")
        assert site.refused == ["redis", "redis"]
        assert caplog.text.count("streams with a client are refused") == 1
        assert "run ACL SETUSER <user> &flask-sse:control" in caplog.text
        with pytest.raises(
            NoPermissionError,
            match=r"disconnect\(\) needs the channel flask-sse:control; run ACL SETUSER <user> &f",
        ):
            site.disconnect(client="alice")
        site.publish("hello", "public-a")
        assert nobody.events(1)[0].data == "hello"
        # No restart is necessary.
        shared_redis.admin.execute_command("ACL", "SETUSER", "limited", f"&{CONTROL}")
        allowed = site.open("public-a", client="alice")
        assert site.disconnect(client="alice") == 1
        assert rest(allowed) == []
