"""The commands of a blueprint, such as ``flask sse publish``.

Each runs in the main thread, in an application context. Every application that registers
a blueprint imports this module; modules that only the doctor needs are imported when it runs.
"""

import contextlib
import copy
import http.client
import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakSet

import click
import redis
from flask.cli import with_appcontext

from flask_sse._cli.channels import count_members, find_channels
from flask_sse._cli.output import (
    ending_quietly,
    is_output_closed,
    one_line,
    write_event,
    write_finding,
    write_json,
)
from flask_sse._cli.sources import generated, merge, streamed, subscribed
from flask_sse._doctor.finding import Level
from flask_sse._event.message import Message
from flask_sse._event.revocation import Revocation
from flask_sse._redis.revoking import revoke
from flask_sse._settings import URL_KEYS
from flask_sse._state import State, lacks_url

_TICK: Final = 0.5

_ours: Final[WeakSet[click.Command]] = WeakSet()


class CommandsBlueprint(Protocol):
    """The parts of a blueprint that the commands need."""

    @property
    def cli(self) -> click.Group:
        """Its commands."""
        ...

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str = "sse",
    ) -> int:
        """Publish an event; return how many processes are subscribed to the channel."""
        ...

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Generate the messages of a channel."""
        ...


class Owner(NamedTuple):
    """The owner of the commands."""

    blueprint: CommandsBlueprint
    source: Callable[[], object]
    """Returns its client for the current application's Redis, or the cluster in the URL."""
    generates: bool
    """Whether it has a generator of messages of its own."""


def add_commands(owner: Owner) -> None:
    """Add the commands to a blueprint, except those whose names it already uses."""
    blueprint = owner.blueprint
    if blueprint.cli.help is None:
        blueprint.cli.help = "Publish events, listen to them, and diagnose problems."
    commands = {
        "publish": publish,
        "listen": listen,
        "channels": channels,
        "disconnect": disconnect,
        "doctor": doctor,
    }
    for name, command in commands.items():
        own = copy.copy(command)
        assert command.callback is not None
        own.callback = with_appcontext(partial(command.callback, owner))
        if blueprint.cli.commands.setdefault(name, own) is own:
            _ours.add(own)


@contextlib.contextmanager
def yielding_to(commands: MutableMapping[str, click.Command]) -> Generator[None]:
    """Put back the application's commands that ours replace while a blueprint is registered.

    If a command of ours is not there in the end, the user of the command line is told why.
    """
    before = dict(commands)
    yield
    added = {
        name: command
        for name, command in commands.items()
        if command is not before.get(name) and _is_ours(command)
    }
    for name in added.keys() & before.keys():
        if not _is_ours(before[name]):
            commands[name] = before[name]
    context = click.get_current_context(silent=True)
    if context is not None and not context.resilient_parsing:
        # The application may add its own commands later.
        context.find_root().call_on_close(partial(_explain_missing, commands, added))


def _explain_missing(
    commands: Mapping[str, click.Command], added: Mapping[str, click.Command]
) -> None:
    for name, command in added.items():
        found = commands.get(name, command)
        if found is not command and not _is_ours(found):
            click.echo(
                f"Flask-SSE: {name!r} is the application's own command; to have those of Flask-SSE "
                f"as well, give them another name: register_blueprint(..., cli_group='events')",
                err=True,
            )


def _is_ours(command: click.Command) -> bool:
    """Whether it is a command of ours, or a group that has no other commands."""
    if isinstance(command, click.Group):
        return bool(command.commands) and all(map(_is_ours, command.commands.values()))
    return command in _ours


@click.command()
@click.argument("data")
@click.option("--channel", default="sse", show_default=True, help="Where to publish.")
@click.option("--type", "type_", metavar="NAME", help="The event type; message by default.")
@click.option("--id", "id_", metavar="ID", help="The event id.")
@click.option("--retry", type=click.IntRange(min=0), help="Milliseconds until clients reconnect.")
@click.option("--json/--text", "is_json", help="What DATA is; text by default.")
@click.option("--lines", is_flag=True, help="Publish each line as an event as soon as it arrives.")
def publish(  # noqa: PLR0917 - click gives them by name
    owner: Owner,
    data: str,
    channel: str,
    type_: str | None,
    id_: str | None,
    retry: int | None,
    is_json: bool,
    lines: bool,
) -> None:
    """Publish DATA as an event.

    If DATA is -, it is read from standard input, without its final line ending.
    """
    if lines and data != "-":
        raise click.UsageError("--lines reads from standard input: pass - as DATA")
    number = listeners = 0
    with _explained(), ending_quietly():
        _require_shared_redis(owner)
        for text in _read(data, lines=lines):
            event: object = _parse_json(text) if is_json else text
            listeners = owner.blueprint.publish(event, type_, id_, retry, channel)
            number += 1
    events = "1 event" if number == 1 else f"{number} events"
    click.echo(f"{events} published to {channel}; {_processes(listeners)}", err=True)


@click.command()
@click.argument("channels", metavar="[CHANNEL]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Write each event as a JSON object.")
@click.option("--count", type=click.IntRange(min=1), help="End after this many events.")
@click.option("--url", metavar="URL", help="Listen to this stream over HTTP, as a browser does.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="With --url.")
def listen(  # noqa: PLR0917 - click gives them by name
    owner: Owner,
    channels: tuple[str, ...],
    as_json: bool,
    count: int | None,
    url: str | None,
    headers: tuple[str, ...],
) -> None:
    """Write the events of each CHANNEL, one per line, until Ctrl-C.

    Without CHANNEL, it listens to sse, or with --url, to the URL as it is.
    """
    if headers and url is None:
        raise click.UsageError("--header requires --url")
    with _explained(), ending_quietly():
        if url is None:
            _require_shared_redis(owner)
            names = channels or ("sse",)
            if owner.generates:
                sources = generated(owner.blueprint, names)
            else:
                sources = [subscribed(owner.source(), names)]
        else:
            sources = streamed(url, channels, _parse_headers(headers))
        with contextlib.closing(merge(sources, _TICK)) as arrivals:
            _write(arrivals, count, as_json=as_json)


@click.command()
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Write each channel as a JSON object.")
def channels(owner: Owner, pattern: str, as_json: bool) -> None:
    """List the channels that have listeners, in how many processes, and their members.

    PATTERN selects channels with the syntax of Redis, such as 'users.*'. One process may serve any
    number of clients. Channels of other applications on the same Redis are shown as well. In a
    Redis Cluster, all primaries are asked; if one does not answer, the exit status is 1.
    """
    with _explained():
        _require_shared_redis(owner)
        source, state = owner.source(), State.current()
        found = find_channels(source, pattern)
        has_presence = state.settings.has_presence
        present = [name for name, _ in found.processes if has_presence(name.encode())]
        members = count_members(state.publisher_for(source), present)
    for name, number in found.processes:
        if as_json:
            shown = {"members": members[name]} if name in members else {}
            write_json({"channel": name, "processes": number, **shown})
        else:
            suffix = f"  members: {members[name]}" if name in members else ""
            click.echo(f"{number:>5}  {one_line(name)}{suffix}")
    if found.problems:
        raise click.ClickException("Redis: " + "; ".join(found.problems))
    if not found.processes:
        click.echo("no channel has a listener", err=True)


@click.command()
@click.option("--client", metavar="NAME", help="End the streams of this client.")
@click.option("--channel", help="End the streams that have this channel.")
def disconnect(owner: Owner, client: str | None, channel: str | None) -> None:
    """End the streams of a client, in all processes of the server.

    Only streams that the application has opened with streams.stream(..., client=NAME) are ended.
    Their clients reconnect, so the application checks them again. With --client and --channel,
    both must match.
    """
    if client is None and channel is None:
        raise click.UsageError("pass --client, --channel or both")
    with _explained():
        _require_shared_redis(owner)
        revocation = Revocation.of(client, channel)
        number = revoke(State.current().publisher_for(owner.source()), revocation)
    told = "1 process has" if number == 1 else f"{number or 'no'} processes have"
    click.echo(f"{told} been told to end streams", err=True)


@click.command()
@click.option("--url", metavar="URL", help="Also connect to this stream, as a browser would.")
@click.option("--channel", help="Where to publish events for the test; by default a new channel.")
@click.option("--origin", metavar="ORIGIN", help="Check that pages from this origin may connect.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="With --url.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Seconds to wait for anything that should arrive at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Write each finding as a JSON object.")
def doctor(  # noqa: PLR0917 - click gives them by name
    owner: Owner,
    url: str | None,
    channel: str | None,
    origin: str | None,
    headers: tuple[str, ...],
    patience: float,
    as_json: bool,
) -> None:
    """Check the configuration, Redis and, with --url, a stream.

    Each line is one check: ok, warn or fail, and what to do. If a check fails, the exit status
    is 1. The test events have the type flask-sse.doctor, which no page listens to.
    """
    from flask_sse._doctor.examination import Target, examine  # noqa: PLC0415 - only this command needs it

    if url is None and (origin is not None or headers):
        raise click.UsageError("--origin and --header require --url")
    target = None if url is None else Target(url, _parse_headers(headers), origin)
    has_failed = False
    with _explained():
        for finding in examine(owner.blueprint, owner.source, target, channel, patience):
            has_failed = has_failed or finding.level is Level.FAIL
            if as_json:
                write_json(finding._asdict())
            else:
                write_finding(finding)
    if has_failed:
        click.get_current_context().exit(1)


def _write(
    arrivals: Iterable[tuple[str, Message] | None], count: int | None, *, as_json: bool
) -> None:
    """Write events, until the given number is reached or nobody reads the output."""
    left = count
    for arrival in arrivals:
        if arrival is None:
            if is_output_closed():
                return
            continue
        channel, message = arrival
        if as_json:
            write_json({"channel": channel, **message.to_dict()})
        else:
            write_event(channel, message)
        left = None if left is None else left - 1
        if left == 0:
            return


def _read(data: str, *, lines: bool) -> Iterator[str]:
    if data != "-":
        yield data
        return
    source = sys.stdin.buffer
    for piece in source if lines else [source.read()]:
        yield piece.decode().removesuffix("\n").removesuffix("\r")


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise click.ClickException(f"{text!r} is not JSON: {error}") from error


def _refuse(constant: str) -> object:
    raise ValueError(f"it contains {constant}")


def _parse_headers(headers: Iterable[str]) -> dict[str, str]:
    pairs = [header.partition(":") for header in headers]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            raise click.UsageError(f"--header must be NAME:VALUE, not {name!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _processes(number: int) -> str:
    if number == 0:
        return "nobody is listening"
    return "1 process is listening" if number == 1 else f"{number} processes are listening"


def _require_shared_redis(owner: Owner) -> None:
    state = State.current()
    if state.settings.in_memory and owner.source() is state.source():
        raise click.ClickException(
            "memory:// keeps events inside one process, and this command does not run in the "
            "process of your server; set REDIS_URL to a Redis that both can reach"
        )


@contextlib.contextmanager
def _explained() -> Generator[None]:
    """Show errors whose message says what to do without their traceback."""
    try:
        yield
    except KeyError as error:
        # The text of any other says nothing without its traceback.
        if not lacks_url(error):
            raise
        keys = " or ".join(URL_KEYS)
        raise click.ClickException(f"{error.args[0]} ({keys})") from error
    except redis.RedisError as error:
        raise click.ClickException(f"Redis: {error}") from error
    except (TypeError, ValueError, BufferError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error) or type(error).__name__) from error
    except BrokenPipeError:
        # This is about the output; click handles it.
        raise
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(str(error) or type(error).__name__) from error
