"""Presence in one process and in several states of an application, which stand for processes."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.test import TestResponse

from flask_sse import ServerSentEventsBlueprint, history, presence, sse, streams
from flask_sse._doctor.presence_scripts import run_scripts
from flask_sse._presence import roster
from flask_sse._redis import lease_commands
from flask_sse._state import State
from tests.support.presence import SHORT, streams_of
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import LocalStream, pieces_of

Make = Callable[..., "Process"]


class Process:
    """An application that has members, like one in a process of its own."""

    def __init__(self, url: str, stack: ExitStack, **settings: object) -> None:
        self.app = Flask("tests")
        self.app.config.update({"REDIS_URL": url, "SSE_PRESENCE": ["*"], **settings})
        self.app.register_blueprint(sse, url_prefix="/stream")
        self.app.before_request(self._name)
        self.app.add_url_rule("/own", view_func=self._view)
        self._stack = stack
        stack.callback(State.of(self.app).rest, PATIENCE)

    def open(self, *channels: str, client: str, path: str = "/own") -> "Page":
        """Open a stream, which is closed after the test, and read its first piece."""
        query: dict[str, Any] = {"channel": channels, "client": client}
        response = self.app.test_client().get(path, query_string=query)
        self._stack.callback(response.close)
        return Page(response)

    def members(self, channel: str) -> dict[str, int]:
        """Return the members of a channel, and how many streams each has."""
        return streams_of(self.app, channel)

    def wait_members(self, channel: str, **members: int) -> None:
        """Wait until these are the members of a channel."""
        wait_until(lambda: self.members(channel) == members, f"the members are {members}")

    def watch(self, channel: str) -> "Watcher":
        """Open a stream without a name."""
        return Watcher(self.open(channel, client="").stream)

    def _name(self) -> None:
        g.sse_client = request.args.get("client")

    def _view(self) -> Response:
        arguments = request.args
        return streams.stream(arguments.getlist("channel"), client=arguments.get("client") or None)


class Page:
    """A page with a stream."""

    def __init__(self, response: TestResponse) -> None:
        self.stream = LocalStream(pieces_of(response))
        self.close = response.close


class Watcher:
    """Reads the events about members."""

    def __init__(self, stream: LocalStream) -> None:
        self._stream = stream

    def wait(self, number: int) -> list[tuple[str, str]]:
        """Return the first events of this kind, as pairs of the type and the client."""
        while len(self.seen()) < number:
            assert self._stream.read()
        return self.seen()

    def seen(self) -> list[tuple[str, str]]:
        """Return the events that have been read."""
        return [
            (event.type.removeprefix("sse."), json.loads(event.data)["client"])
            for event in self._stream.parser.events
            if event.type in ("sse.join", "sse.leave")
        ]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make leases short."""
    monkeypatch.setattr(roster, "TIMES", SHORT)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what closes all streams, and ends all threads."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def process(any_redis_url: str, stack: ExitStack) -> Process:
    """Return a process on each kind of Redis."""
    return Process(any_redis_url, stack)


@pytest.fixture(params=["redis", "cluster"])
def make(request: pytest.FixtureRequest, stack: ExitStack) -> Make:
    """Return a function that makes processes with the same Redis."""
    server = request.getfixturevalue(f"shared_{request.param}")
    return lambda **settings: Process(server.url, stack, **settings)


def test_members(process: Process, channel: str) -> None:
    """A client is a member once, whatever its tabs; it has left some time after its last one."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    watcher = process.watch(channel)
    first = process.open(channel, client="alice")
    assert watcher.wait(1) == [("join", "alice")]
    second = process.open(channel, "other", client="alice")
    bob = process.open(channel, client="bob")
    process.wait_members(channel, alice=2, bob=1)
    process.wait_members("other", alice=1)
    with process.app.app_context():
        member = presence.members(channel)["alice"]
    assert before < member.since < datetime.now(UTC) + timedelta(seconds=1)
    assert member == (member.since, 2)
    first.close()
    process.wait_members(channel, alice=1, bob=1)
    second.close()
    bob.close()
    assert watcher.wait(4) == [
        ("join", "alice"),
        ("join", "bob"),
        ("leave", "alice"),
        ("leave", "bob"),
    ]
    assert process.members(channel) == process.members("other") == {}


def test_a_reload(process: Process, channel: str) -> None:
    """A client that comes back has neither left nor joined."""
    watcher = process.watch(channel)
    page = process.open(channel, client="alice")
    assert watcher.wait(1) == [("join", "alice")]
    for _ in range(3):
        page.close()
        page = process.open(channel, client="alice")
    bob = process.open(channel, client="bob")
    watcher.wait(2)
    bob.close()
    assert watcher.wait(3) == [("join", "alice"), ("join", "bob"), ("leave", "bob")]
    process.wait_members(channel, alice=1)


def test_the_documented_view(process: Process, channel: str) -> None:
    """The name is `g.sse_client` there, if it is text."""
    watcher = process.watch(channel)
    stream = process.open(channel, client="zoë ✓", path="/stream")
    assert watcher.wait(1) == [("join", "zoë ✓")]
    assert process.members(channel) == {"zoë ✓": 1}
    stream.close()
    assert watcher.wait(2)[1] == ("leave", "zoë ✓")


@pytest.mark.parametrize(
    ("client", "error"),
    [(7, "client must be a str, not 7"), ("x" * 257, "client must have at most 256 characters")],
)
def test_a_name_that_is_refused(
    process: Process,
    channel: str,
    caplog: pytest.LogCaptureFixture,
    client: object,
    error: str,
) -> None:
    """A name that is not text, or too long, makes nobody a member, which is logged once."""

    @process.app.before_request
    def name() -> None:
        g.sse_client = client if "client" in request.args else None

    process.open(channel, client="bob")
    process.app.test_client().get("/stream", query_string={"channel": channel}).close()
    assert not caplog.records
    for _ in range(2):
        process.open(channel, client="7", path="/stream")
    process.wait_members(channel, bob=1)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"g.sse_client makes nobody a member: {error}")


def test_overridden_messages(any_redis_url: str, stack: ExitStack, channel: str) -> None:
    """A stream of an overridden `messages` counts, too."""

    class Own(ServerSentEventsBlueprint):
        def messages(self, channel: str = "sse") -> Any:
            yield from super().messages(channel=channel)

    process = Process(any_redis_url, stack)
    own = Own("own", __name__)
    own.add_url_rule("", view_func=own.stream)
    process.app.register_blueprint(own, url_prefix="/overridden")
    watcher = process.watch(channel)
    stream = process.open(channel, client="alice", path="/overridden")
    assert watcher.wait(1) == [("join", "alice")]
    stream.close()
    assert watcher.wait(2)[1] == ("leave", "alice")


def test_channels_with_history(any_redis_url: str, stack: ExitStack, channel: str) -> None:
    """Joins and leaves are events of the log, so that a client that was away gets them."""
    process = Process(any_redis_url, stack, SSE_HISTORY=100)
    with process.app.app_context():
        before = history.position(channel)
    alice = process.open(channel, client="alice")
    process.wait_members(channel, alice=1)
    alice.close()
    process.wait_members(channel)
    with process.app.app_context():
        messages = history.messages(channel, after=before)
        kept = [next(messages) for _ in range(2)]
    messages.close()
    assert [message.type for message in kept] == ["sse.join", "sse.leave"]
    assert kept[0].data == kept[1].data == {"channel": channel, "client": "alice"}


def test_a_name_that_is_not_json(
    process: Process, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that the application's JSON provider refuses does not hold up the others."""
    assert isinstance(process.app.json, DefaultJSONProvider)
    process.app.json.ensure_ascii = False
    process.app.add_url_rule("/half", view_func=lambda: streams.stream([channel], client="\ud83d"))
    watcher = process.watch(channel)
    process.open(client="", path="/half")
    process.open(channel, client="bob")
    assert watcher.wait(1) == [("join", "bob")]
    assert process.members(channel) == {"\ud83d": 1, "bob": 1}
    assert "sse.join of the client '\\ud83d' can't be published" in caplog.text


def test_no_presence(any_redis_url: str, stack: ExitStack, channel: str) -> None:
    """Without a pattern that matches, nothing is known, and no thread is started."""
    process = Process(any_redis_url, stack, SSE_PRESENCE=["room.*"])
    process.open(channel, client="alice")
    with process.app.app_context(), pytest.raises(ValueError, match="SSE_PRESENCE says which"):
        presence.members(channel)
    process.open(f"room.{channel}", channel, client="alice")
    process.wait_members(f"room.{channel}", alice=1)


def test_two_processes(make: Make, channel: str) -> None:
    """A member of both joins once, and leaves when it has left both."""
    one, two = make(), make()
    watcher = one.watch(channel)
    first, second = one.open(channel, client="alice"), two.open(channel, client="alice")
    one.wait_members(channel, alice=2)
    first.close()
    two.wait_members(channel, alice=1)
    bob = two.open(channel, client="bob")
    assert watcher.wait(2) == [("join", "alice"), ("join", "bob")]
    second.close()
    bob.close()
    assert watcher.wait(4)[2:] == [("leave", "alice"), ("leave", "bob")]


def test_a_user_who_may_not_run_scripts(
    redis_server: RedisServer, stack: ExitStack, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams go on without presence, and the command that the error names brings it back."""
    allow = ("ACL", "SETUSER", "few")
    redis_server.admin.execute_command(*allow, "on", ">secret", "&*", "+@connection", "+@pubsub")
    process = Process(redis_server.url.replace("://", "://few:secret@"), stack)
    page = process.open(channel, client="alice")
    with process.app.app_context():
        with pytest.raises(redis.ResponseError, match="SSE_PRESENCE needs") as raised:
            presence.members(channel)
        wait_until(lambda: str(raised.value) in caplog.text, "it is in the log")
        sse.publish("x", channel=channel)
        assert page.stream.events(1)[0].data == "x"
        process.open(channel, client="bob").close()
        sse.publish("y", channel=channel)
        assert page.stream.events(2)[1].data == "y"
    assert caplog.text.count("SSE_PRESENCE needs") == 1
    [rules] = re.findall("ACL SETUSER <user> ([^;]*);", str(raised.value))
    redis_server.admin.execute_command(*allow, *rules.split())
    process.wait_members(channel, alice=1)
    assert Watcher(page.stream).wait(1)[0] == ("join", "alice")


def test_all_rights_are_needed(redis_server: RedisServer, channel: str) -> None:
    """A user who lacks a single one of those that the error names can't use presence."""
    admin: Any = redis_server.admin
    client = redis.Redis(port=redis_server.port, username="scripts", password="secret")
    [rules] = re.findall(
        "ACL SETUSER <user> ([^;]*);", str(lease_commands.explain(redis.ResponseError("")))
    )
    for missing in ("", *rules.split()):
        admin.acl_deluser("scripts")
        admin.script_flush()
        given = [rule for rule in rules.split() if rule != missing]
        admin.execute_command("ACL", "SETUSER", "scripts", "on", ">secret", "+client", *given)
        if missing:
            with pytest.raises(redis.ResponseError, match="SSE_PRESENCE needs"):
                _run_scripts(client, channel)
        else:
            _run_scripts(client, channel)
    client.close()


def _run_scripts(client: redis.Redis, channel: str) -> None:
    try:
        run_scripts(client, channel.encode())
    except redis.ResponseError as error:
        raise lease_commands.explain(error) from error


def test_a_user_who_may_not_publish(
    redis_server: RedisServer, stack: ExitStack, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The members are known, and nobody hears of them; the log says once why."""
    allow = ("ACL", "SETUSER", "reader")
    redis_server.admin.execute_command(*allow, "on", ">secret", "~*", "&*", "+@all", "-publish")
    process = Process(redis_server.url.replace("://", "://reader:secret@"), stack)
    page = process.open(channel, client="alice")
    process.open(channel, client="bob")
    process.open("other", client="bob")
    process.wait_members(channel, alice=1, bob=1)
    process.wait_members("other", bob=1)
    wait_until(lambda: "ACL SETUSER <user> +@pubsub &*;" in caplog.text, "it is logged")
    redis_server.admin.execute_command(*allow, "+publish")
    process.open(channel, client="carol")
    assert Watcher(page.stream).wait(1) == [("join", "carol")]
    process.wait_members(channel, alice=1, bob=1, carol=1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
