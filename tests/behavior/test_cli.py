"""`flask sse publish`, `listen` and `channels`, on a real Redis."""

import json
import os
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import AppGroup, FlaskGroup
from flask.testing import FlaskCliRunner

from flask_sse import Message, ServerSentEventsBlueprint, history, sse, streams
from flask_sse._state import State
from flask_sse.testing import open_stream
from tests.support import servers
from tests.support.commands import FLASK, flask_command, settings_in_environment
from tests.support.listening import listening
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, WORKERS
from tests.support.waiting import PATIENCE, wait_until

Run = Callable[..., Result]


@pytest.fixture
def app(make_app: Callable[..., Flask], shared_redis: RedisServer) -> Flask:
    """Return an application with history on some channels."""
    return make_app(REDIS_URL=shared_redis.url, SSE_HISTORY={"logged.*": 10})


@pytest.fixture
def run(app: Flask) -> Run:
    """Return a function that runs a command of the blueprint's."""

    def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
        runner: FlaskCliRunner = app.test_cli_runner()
        return runner.invoke(args=["sse", *arguments], input=stdin)

    return invoke


def test_commands(run: Run) -> None:
    """The commands are those of the blueprint, and each has help that describes its options."""
    done = run("--help")
    assert done.exit_code == 0
    for name in ("channels", "disconnect", "doctor", "listen", "publish"):
        assert f"  {name} " in done.output
        described = run(name, "--help")
        assert described.exit_code == 0
        for line in described.output.partition("Options:\n")[2].splitlines():
            # An option without a description would end with its name.
            assert line.startswith(" " * 10) or "  " in line.strip()


def test_publish(run: Run, shared_redis: RedisServer, channel: str) -> None:
    """Text is published as it is, with all fields of an event."""
    with listening(shared_redis.admin, channel) as listener:
        done = run(
            *("publish", '{"a": 1}', "--channel", channel),
            *("--type", "greeting", "--id", "7", "--retry", "0"),
        )
        assert listener.payloads(1) == [
            {"data": '{"a": 1}', "type": "greeting", "id": "7", "retry": 0}
        ]
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"1 event published to {channel}; 1 process is listening\n"


def test_publish_json(run: Run, shared_redis: RedisServer, channel: str) -> None:
    """JSON is published as the value that it represents."""
    with listening(shared_redis.admin, channel) as listener:
        run("publish", '{"a": [1, null]}', "--json", "--channel", channel)
        assert listener.payloads(1) == [{"data": {"a": [1, None]}}]


@pytest.mark.parametrize(
    ("options", "stdin", "published"),
    [
        ((), "one\ntwo\n", ["one\ntwo"]),
        ((), "", [""]),
        (("--lines",), "one\n\ntwo\r\nthree é", ["one", "", "two", "three é"]),
        (("--lines", "--json"), '1\n"x"\n', [1, "x"]),
    ],
)
def test_publish_the_standard_input(
    run: Run,
    shared_redis: RedisServer,
    channel: str,
    options: tuple[str, ...],
    stdin: str,
    published: list[object],
) -> None:
    """With - the input is one event, and with --lines each line of it is one."""
    with listening(shared_redis.admin, channel) as listener:
        done = run("publish", "-", "--channel", channel, *options, stdin=stdin.encode())
        payloads = listener.payloads(len(published))
    assert [payload["data"] for payload in payloads] == published
    number = "1 event" if len(published) == 1 else f"{len(published)} events"
    assert done.stderr.startswith(f"{number} published to {channel}; ")


def test_publish_until_interrupted(tmp_path: Path, shared_redis: RedisServer, channel: str) -> None:
    """Lines are published as they arrive, and Ctrl-C ends it without an error."""
    reading, writing = os.pipe()
    arguments = ("sse", "publish", "-", "--lines", "--channel", channel)
    settings = {"REDIS_URL": shared_redis.url}
    with (
        listening(shared_redis.admin, channel) as listener,
        flask_command(tmp_path, *arguments, settings=settings, stdin=reading) as command,
    ):
        os.close(reading)
        os.write(writing, b"one\ntwo\nthr")
        assert [payload["data"] for payload in listener.payloads(2)] == ["one", "two"]
        command.interrupt()
        assert command.wait_end() == 0
        assert command.errors == [f"2 events published to {channel}; 1 process is listening"]
        os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "error"),
    [
        (("x", "--lines"), None, 2, "--lines reads from standard input: pass - as DATA"),
        (("x", "--retry", "-1"), None, 2, "-1 is not in the range x>=0"),
        (("x", "--json"), None, 1, "'x' is not JSON: Expecting value"),
        (("[NaN]", "--json"), None, 1, "'[NaN]' is not JSON: it contains NaN"),
        (("x", "--type", "a\nb"), None, 1, "type must not contain a line break"),
        (("x", "--id", "1", "--channel", "logged.x"), None, 1, "id must not be given"),
        (("-",), b"\xff", 1, "can't decode byte 0xff"),
    ],
)
def test_publish_refuses(
    run: Run, arguments: tuple[str, ...], stdin: bytes | None, status: int, error: str
) -> None:
    """If an event can't be published, the error is explained without a traceback."""
    done = run("publish", *arguments, stdin=stdin)
    assert done.exit_code == status
    assert error in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (None, "Must set a redis connection URL in app config. (SSE_REDIS_URL or REDIS_URL)"),
        ("redis://localhost:1", "Redis: "),
        ("http://localhost", "REDIS_URL must begin with one of redis://"),
        ("memory://", "memory:// keeps events inside one process"),
    ],
)
@pytest.mark.parametrize("arguments", [["publish", "x"], ["channels"]])
def test_without_a_redis(
    make_app: Callable[..., Flask], arguments: list[str], url: str | None, error: str
) -> None:
    """The error names the missing setting, and the exit status is 1."""
    app = make_app(REDIS_URL=url)
    done = app.test_cli_runner().invoke(args=["sse", *arguments])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {error}")


@pytest.mark.parametrize("url", [None, "redis://localhost", "redis://localhost/x"])
def test_another_missing_key(make_app: Callable[..., Flask], url: str | None) -> None:
    """A KeyError of the application's own is not explained as a missing URL."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            raise KeyError("MY_REDIS")

    app = make_app(REDIS_URL=url)
    app.register_blueprint(Own("own", __name__))
    for command in (["publish", "x"], ["channels"], ["listen"], ["disconnect", "--client", "x"]):
        done = app.test_cli_runner().invoke(args=["own", *command])
        assert isinstance(done.exception, KeyError)
        assert done.output == ""
    (found,) = [
        line
        for line in app.test_cli_runner().invoke(args=["own", "doctor"]).output.splitlines()
        if line.startswith("fail")
    ]
    assert "url: this check could not be made: KeyError: 'MY_REDIS' (in test_cli.py, " in found


@pytest.mark.parametrize("url", [None, "memory://"])
def test_listen_without_a_redis(make_app: Callable[..., Flask], url: str | None) -> None:
    """There is nothing to wait for, so it ends at once with an error."""
    done = make_app(REDIS_URL=url).test_cli_runner().invoke(args=["sse", "listen"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")


@pytest.mark.long
def test_listen_to_a_redis_that_is_away(make_app: Callable[..., Flask]) -> None:
    """If Redis does not confirm the subscription, it ends with an error after some seconds."""
    app = make_app(REDIS_URL="redis://localhost:1")
    done = app.test_cli_runner().invoke(args=["sse", "listen"])
    assert done.exit_code == 1
    assert "Error: Redis: Redis has not confirmed the subscription" in done.stderr


def test_channels(run: Run, shared_redis: RedisServer, channel: str) -> None:
    """Channels with listeners are shown with the number of processes, the busiest first."""
    names = [f"{channel}.a", f"{channel}.b", f"{channel}.\x1b"]
    with ExitStack() as stack:
        for name in [*names, names[1]]:
            stack.enter_context(listening(shared_redis.admin, name))
        assert run("channels", f"{channel}.*").stdout.splitlines() == [
            f"    2  {channel}.b",
            f"    1  {channel}.\\x1b",
            f"    1  {channel}.a",
        ]
        shown = run("channels", "--json", f"{channel}.b").stdout
        assert json.loads(shown) == {"channel": f"{channel}.b", "processes": 2}
        assert f"    2  {channel}.b\n" in run("channels").stdout
    done = run("channels", f"{channel}.*")
    assert (done.stdout, done.stderr) == ("", "no channel has a listener\n")


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_members(
    make_app: Callable[..., Flask], request: pytest.FixtureRequest, kind: str, channel: str
) -> None:
    """The number of members is shown where there is presence."""
    url = request.getfixturevalue(f"shared_{kind}").url
    app = make_app(REDIS_URL=url, SSE_PRESENCE=["channel-*"])
    app.add_url_rule("/own", view_func=lambda: streams.stream([channel], client="alice"))
    other = f"other-{channel}"

    def shown(*arguments: str) -> str:
        return app.test_cli_runner().invoke(args=["sse", "channels", *arguments]).stdout

    with open_stream(app, url="/own"), open_stream(app, url="/own"), open_stream(app, other):
        wait_until(lambda: "members: 1" in shown(channel), "it is a member")
        assert shown(channel) == f"    1  {channel}  members: 1\n"
        values = {"channel": channel, "processes": 1, "members": 1}
        assert json.loads(shown(channel, "--json")) == values
        assert json.loads(shown(other, "--json")) == {"channel": other, "processes": 1}
    State.of(app).rest(PATIENCE)


def test_other_name(make_app: Callable[..., Flask], shared_redis: RedisServer) -> None:
    """A blueprint with another name has the commands under that name, in addition to its own."""
    app = make_app(REDIS_URL=shared_redis.url)

    class Audit(ServerSentEventsBlueprint):
        def publish(self, *args: object, **kwargs: object) -> int:
            del args, kwargs
            return 7

    audit = Audit("audit", __name__)

    @audit.cli.command("channels")
    def own() -> None:
        """Replace a command."""
        print("its own")

    app.register_blueprint(audit)
    app.register_blueprint(sse, name="second", url_prefix="/second")
    runner = app.test_cli_runner()
    assert "7 processes are listening" in runner.invoke(args=["audit", "publish", "x"]).stderr
    assert runner.invoke(args=["audit", "channels"]).stdout == "its own\n"
    assert "nobody is listening" in runner.invoke(args=["second", "publish", "x"]).stderr
    assert "nobody is listening" in runner.invoke(args=["sse", "publish", "x"]).stderr


def test_listen(tmp_path: Path, shared_redis: RedisServer, run: Run, channel: str) -> None:
    """Each event of each channel is one line; Ctrl-C ends it without an error."""
    settings = {"REDIS_URL": shared_redis.url}
    other = f"{channel}.other"
    with flask_command(tmp_path, "sse", "listen", channel, other, settings=settings) as command:
        assert set(command.wait_errors(2)) == {f"listening to {channel}", f"listening to {other}"}
        run("publish", "two\nlines, \x1b[31mred", "--channel", channel)
        command.wait_output(1)
        run("publish", '{"a": 1}', "--json", "--type", "x", "--id", "7", "--channel", other)
        lines = [line.partition(" ")[2] for line in command.wait_output(2)]
        assert lines == [
            rf"{channel} message two\nlines, \x1b[31mred",
            f'{other} x {{"a": 1}}  id=7',
        ]
        command.interrupt()
        assert command.wait_end() == 0
        assert len(command.errors) == 2
    shared_redis.wait_listeners(0, channel)


def test_listen_to_several_channels(
    tmp_path: Path, redis_server: RedisServer, make_app: Callable[..., Flask], channel: str
) -> None:
    """All channels have one connection to Redis, and each id is that of its own channel."""
    settings = {"REDIS_URL": redis_server.url, "SSE_HISTORY": {"logged.*": 10}}
    names = [channel, f"logged.{channel}", f"logged.{channel}.other"]
    app = make_app(**settings)
    arguments = ("sse", "listen", *names, *names, "--json", "--count", "3")
    with (
        app.app_context(),
        flask_command(tmp_path, *arguments, settings=settings) as command,
    ):
        assert command.wait_errors(3) == [f"listening to {name}" for name in names]
        admin: Any = redis_server.admin
        [subscription] = admin.client_list(_type="pubsub")
        assert subscription["sub"] == "3"
        for name in names:
            sse.publish("x", channel=name)
        assert command.wait_end() == 0
        events = sorted(map(json.loads, command.output), key=lambda event: event["channel"])
        assert events == [
            {"channel": names[0], "data": "x"},
            *({"channel": name, "data": "x", "id": history.position(name)} for name in names[1:]),
        ]


def test_listen_to_an_overridden_generator(
    make_app: Callable[..., Flask], shared_redis: RedisServer
) -> None:
    """If a blueprint generates its own messages, these are written."""

    class Own(ServerSentEventsBlueprint):
        def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
            yield Message(f"welcome to {channel}")

    app = make_app(REDIS_URL=shared_redis.url)
    app.register_blueprint(Own("own", __name__))
    done = app.test_cli_runner().invoke(args=["own", "listen", "a", "b", "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert sorted(map(json.loads, done.stdout.splitlines()), key=str) == [
        {"channel": name, "data": f"welcome to {name}"} for name in "ab"
    ]


def test_listen_for_machines(
    tmp_path: Path, shared_redis: RedisServer, run: Run, channel: str
) -> None:
    """With --json each line is an object, and with --count it ends by itself.

    A publisher may write NaN, but this command writes JSON.
    """
    arguments = ("sse", "listen", channel, "--json", "--count", "3")
    with flask_command(tmp_path, *arguments, settings={"REDIS_URL": shared_redis.url}) as command:
        command.wait_errors(1)
        run("publish", '{"é": "\\n"}', "--json", "--channel", channel)
        run("publish", "x", "--type", "t", "--retry", "1", "--channel", channel)
        shared_redis.admin.publish(channel, '{"data": {"é": [NaN, -Infinity, 1]}, "id": 7}')
        assert command.wait_end() == 0
        assert [json.loads(line, parse_constant=pytest.fail) for line in command.output] == [
            {"channel": channel, "data": {"é": "\n"}},
            {"channel": channel, "data": "x", "type": "t", "retry": 1},
            {"channel": channel, "data": {"é": [None, None, 1]}, "id": 7},
        ]


def test_listen_on_a_terminal(
    tmp_path: Path, shared_redis: RedisServer, run: Run, channel: str
) -> None:
    """The output has colors in a terminal, but not in a file or a pipe."""
    terminal, writing = os.openpty()
    settings = {"REDIS_URL": shared_redis.url}
    arguments = ("sse", "listen", channel, "--count", "1")
    with flask_command(tmp_path, *arguments, settings=settings, stdout=writing) as command:
        os.close(writing)
        command.wait_errors(1)
        run("publish", "x", "--type", "greeting", "--channel", channel)
        assert command.wait_end() == 0
        shown = os.read(terminal, 1000).decode()
        os.close(terminal)
    assert "\x1b[32m\x1b[1mgreeting\x1b[0m x" in shown


@pytest.mark.parametrize("first", ["silence", "an event"])
def test_listen_to_a_closed_pipe(
    tmp_path: Path, shared_redis: RedisServer, run: Run, channel: str, first: str
) -> None:
    """When the output is closed, it ends soon and silently, with or without an event."""
    reading, writing = os.pipe()
    settings = {"REDIS_URL": shared_redis.url}
    arguments = ("sse", "listen", channel)
    with flask_command(tmp_path, *arguments, settings=settings, stdout=writing) as command:
        os.close(writing)
        command.wait_errors(1)
        os.close(reading)
        if first == "an event":
            run("publish", "x", "--channel", channel)
        assert command.wait_end() == 0
        assert command.errors == [f"listening to {channel}"]


def test_listen_as_a_client(
    tmp_path: Path, shared_redis: RedisServer, run: Run, channel: str
) -> None:
    """With --url, events come through the server, also after the server is replaced."""
    settings: dict[str, object] = {
        "REDIS_URL": shared_redis.url,
        "SSE_RETRY": 10,
        "SSE_HISTORY": {"logged.*": 10},
    }
    name = f"logged.{channel}"
    port = free_port()
    url = f"http://127.0.0.1:{port}/stream"
    arguments = ("sse", "listen", name, "--url", url, "--json", "--count", "4")
    with ExitStack() as stack:
        with servers.gunicorn(tmp_path, *WORKERS["sync"], port=port, settings=settings):
            command = stack.enter_context(flask_command(tmp_path, *arguments, settings={}))
            command.wait_output(1)
            run("publish", "first", "--channel", name)
            command.wait_output(2)
        run("publish", "missed", "--channel", name)
        with servers.gunicorn(tmp_path, *WORKERS["sync"], port=port, settings=settings):
            assert command.wait_end() == 0
        events = [json.loads(line) for line in command.output]
    assert [event.get("type") for event in events] == ["sse.open", None, "sse.open", None]
    assert [event["data"] for event in events[1::2]] == ["first", "missed"]
    assert {event["channel"] for event in events} == {name}


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("--header", "X: 1"), 2, "--header requires --url"),
        (("--url", "http://127.0.0.1:1/", "-H", "X"), 2, "--header must be NAME:VALUE"),
        (("--url", "http://127.0.0.1:1/"), 1, "Connection refused"),
        (("--url", "stream"), 1, "'stream' is not a URL that begins with http://"),
    ],
)
def test_listen_refuses(run: Run, arguments: tuple[str, ...], status: int, error: str) -> None:
    """If listening is impossible, the error is explained without a traceback."""
    done = run("listen", *arguments)
    assert done.exit_code == status
    assert error in done.stderr


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        (("--client", "alice"), True),
        (("--channel", "room"), True),
        (("--client", "alice", "--channel", "room"), True),
        (("--client", "bob"), False),
        (("--client", "alice", "--channel", "other"), False),
    ],
)
def test_disconnect(
    make_app: Callable[..., Flask],
    redis_server: RedisServer,
    arguments: tuple[str, ...],
    ends: bool,
) -> None:
    """The streams that match end, and the number of processes that were told is printed."""
    app = make_app(REDIS_URL=redis_server.url)
    app.add_url_rule("/room", view_func=lambda: streams.stream(["room"], client="alice"))
    with open_stream(app, url="/room") as stream:
        done = app.test_cli_runner().invoke(args=["sse", "disconnect", *arguments])
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr == "1 process has been told to end streams\n"
        if ends:
            assert [*stream] == []
        else:
            with app.app_context():
                sse.publish("x", channel="room")
            assert stream.get().data == "x"


def test_disconnect_without_streams(run: Run, shared_redis: RedisServer) -> None:
    """If no process has a stream with a client, that is no error."""
    done = run("disconnect", "--client", "alice")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "no processes have been told to end streams\n"


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        ((), 2, "pass --client, --channel or both"),
        (("--client", ""), 1, "Error: client must not be empty"),
        (("--client", "x" * 300), 1, "Error: client must have at most 256 characters"),
    ],
)
def test_disconnect_refuses(run: Run, arguments: tuple[str, ...], status: int, error: str) -> None:
    """If the streams can't be told, the reason is explained without a traceback."""
    done = run("disconnect", *arguments)
    assert done.exit_code == status
    assert error in done.stderr


def test_disconnect_without_permission(
    make_app: Callable[..., Flask], redis_server: RedisServer
) -> None:
    """The error names the rule that is missing."""
    rules = ("on", ">secret", "+@all", "~*", "&room")
    redis_server.admin.execute_command("ACL", "SETUSER", "few", *rules)
    app = make_app(REDIS_URL=redis_server.url.replace("//", "//few:secret@"))
    done = app.test_cli_runner().invoke(args=["sse", "disconnect", "--client", "alice"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Redis: ")
    assert "ACL SETUSER <user> &flask-sse:control" in done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("flask sse ", {"channels", "disconnect", "doctor", "listen", "publish"}),
        ("flask sse publish --", {"--channel", "--id", "--json", "--lines", "--retry", "--type"}),
    ],
)
def test_completion(words: str, completed: set[str]) -> None:
    """A shell completes the commands and their options as it does those of Flask."""
    asked = {
        "_FLASK_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "FLASK_APP": FLASK[-1],
    }
    done = subprocess.run(
        [Path(FLASK[0]).parent / "flask"],
        cwd=ROOT,
        env={**os.environ, **asked, **settings_in_environment({"REDIS_URL": "memory://"})},
        capture_output=True,
        text=True,
        check=True,
        timeout=4 * PATIENCE,
    )
    offered = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert completed <= offered


class Commands:
    """The command line of an application with a command group ``sse`` of its own."""

    def __init__(self, *, first: bool, blueprint: ServerSentEventsBlueprint = sse) -> None:
        self._first = first
        self._blueprint = blueprint

    def run(self, *arguments: str, **options: object) -> Result:
        """Run a command of an application that has registered the blueprint with *options*."""
        group = FlaskGroup(create_app=lambda: self._make_app(options))
        return CliRunner().invoke(group, arguments)

    def _make_app(self, options: dict[str, Any]) -> Flask:
        app = Flask("tests")
        app.config["REDIS_URL"] = "memory://"
        if self._first:
            self._add_commands(app)
        app.register_blueprint(self._blueprint, url_prefix="/stream", **options)
        if not self._first:
            self._add_commands(app)
        return app

    @staticmethod
    def _add_commands(app: Flask) -> None:
        group = AppGroup("sse")
        for commands in (group, app.cli):
            commands.command("publish")(lambda: click.echo("the application's own"))
        app.cli.add_command(group)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_command_of_the_application(first: bool) -> None:
    """It is kept, and a message says how to rename ours, which also works."""
    commands = Commands(first=first)
    own = commands.run("sse", "publish")
    assert (own.exit_code, own.stdout) == (0, "the application's own\n")
    assert own.stderr.count("\n") == 1
    assert "'sse' is the application's own command;" in own.stderr
    assert "cli_group='events'" in own.stderr
    missing = commands.run("sse", "doctor")
    assert missing.exit_code == 2
    assert "cli_group='events'" in missing.stderr
    for arguments in (("sse", "publish"), ("publish",)):
        done = commands.run(*arguments, cli_group="events")
        assert (done.exit_code, done.output) == (0, "the application's own\n")
    renamed = commands.run("events", "publish", "x", cli_group="events")
    assert renamed.stderr.startswith("Error: memory:// keeps events inside one process")


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_commands_without_a_group(first: bool) -> None:
    """Without a group, each command gives way to one of the application's own."""
    commands = Commands(first=first)
    own = commands.run("publish", cli_group=None)
    assert own.stdout == "the application's own\n"
    assert "'publish' is the application's own command;" in own.stderr
    listed = commands.run("channels", cli_group=None)
    assert "Error: memory:// keeps events inside one process" in listed.stderr


def test_own_commands_of_a_blueprint() -> None:
    """A group with other commands of the blueprint's replaces another one, as Flask has it."""
    events = ServerSentEventsBlueprint("sse", __name__)
    events.cli.command("publish")(lambda: click.echo("the blueprint's own"))
    done = Commands(first=True, blueprint=events).run("sse", "publish")
    assert (done.exit_code, done.output) == (0, "the blueprint's own\n")
