"""What a browser receives is what it received with 1.0."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import pytest

from flask_sse import __version__
from tests.compatibility.apps import values
from tests.compatibility.browser import Received
from tests.compatibility.conftest import Run
from tests.support.waiting import wait_until

pytestmark = pytest.mark.compatibility

Same = Callable[[str, Callable[[Run], Any]], Any]
Both = Callable[[str], tuple[Run, Run]]

EVENTS: Final = "/api/events"


def test_the_versions(both: Both) -> None:
    """One is 1.0, and the other is this one."""
    old, new = both("factory")
    old.execute("-c", "import flask_sse; assert flask_sse.__version__ == '1.0.0'")
    new.execute("-c", f"import flask_sse; assert flask_sse.__version__ == {__version__!r}")


@pytest.mark.parametrize("name", [*values.DATA, *values.TEXTS])
def test_data(same: Same, name: str) -> None:
    """Data of any kind that JSON has, and text."""
    [received] = same("factory", lambda run: run.receive(EVENTS, f"/data/{quoted(name)}"))
    assert received.type == "message"


CORRECTED: Final[Mapping[str, tuple[list[str], list[str]]]] = {
    # The line end belongs to the data (WHATWG, 9.2.6: one more empty line of data).
    "line end at the end": (["one"], ["one\n"]),
    # A browser drops one space after the colon, so one that is meant needs another.
    "space at the beginning": (["one"], [" one"]),
    # Browsers split lines at CR and LF alone; 1.0 also did at what Python takes for a line end.
    "line separator": (["one\ntwo"], ["one\u2028two"]),
    "next line": (["one\ntwo"], ["one\x85two"]),
    "form feed": (["one\ntwo"], ["one\x0ctwo"]),
    "file separator": (["one\ntwo"], ["one\x1ctwo"]),
    # Empty data is data, where 1.0 wrote no line of it, which is no event to a browser.
    "empty": ([], [""]),
    "one line end": ([""], ["\n"]),
}


@pytest.mark.parametrize("name", values.CORRECTED)
def test_data_that_is_corrected(both: Both, name: str) -> None:
    """The documented differences: what was published arrives, where it did not with 1.0."""
    old, new = (
        [event.data for event in run.receive(EVENTS, f"/data/{quoted(name)}")]
        for run in both("factory")
    )
    assert (old, new) == CORRECTED[name]
    assert new == [values.CORRECTED[name]]


@pytest.mark.parametrize("name", values.ARGUMENTS)
def test_arguments(same: Same, name: str) -> None:
    """Types, ids and retry times, also of types that the documentation does not name."""
    assert len(same("factory", lambda run: run.receive(EVENTS, f"/arguments/{quoted(name)}"))) == 1


CORRECTED_ARGUMENTS: Final = {
    # Both are ids, of which 1.0 wrote none: the browser kept the one before.
    "zero as id": (("message", "7", 5000), ("message", "0", 5000)),
    "empty id": (("message", "7", 5000), ("message", "", 5000)),
    # To reconnect at once is legal, and 1.0 wrote nothing.
    "zero as retry": (("message", "7", 5000), ("message", "7", 0)),
    # As with data: a browser drops one space after the colon.
    "space before type and id": (("a", "7", 5000), (" a", " 7", 5000)),
}


@pytest.mark.parametrize("name", values.CORRECTED_ARGUMENTS)
def test_arguments_that_are_corrected(both: Both, name: str) -> None:
    """The documented differences, after an event that has set an id and a time."""
    found: list[tuple[str, str, int | None]] = []
    for run in both("factory"):
        first, second = run.receive(EVENTS, "/arguments/positional", f"/arguments/{quoted(name)}")
        assert first == Received("greeting", "hello", "7", 5000)
        found.append((second.type, second.id, second.retry))
    assert tuple(found) == CORRECTED_ARGUMENTS[name]


@pytest.mark.parametrize("channel", ["7", "user:1", "a b", "ü", "*", "a,b"])
def test_channels(same: Same, channel: str) -> None:
    """Channels of any name, a number among them, which nobody else hears."""

    def scenario(run: Run) -> list[Received]:
        name = quoted(channel)
        return run.receive(
            f"{EVENTS}?channel={name}", f"/channel/{name}", "/channel/other", channel=channel
        )

    assert [json.loads(event.data) for event in same("factory", scenario)] == [{"to": channel}]


def test_the_default_channel(same: Same) -> None:
    """An empty name in the query means the default one."""

    def scenario(run: Run) -> list[Received]:
        return run.receive(f"{EVENTS}?channel=", "/channel/sse", "/channel/other")

    assert len(same("factory", scenario)) == 1


def test_a_stream_of_many_events(same: Same) -> None:
    """Order, and what ids and retry times mean for what follows them."""
    names = [*values.ARGUMENTS, *values.ARGUMENTS]
    paths = [f"/arguments/{quoted(name)}" for name in names if name.startswith(("number", "text"))]
    assert len(same("factory", lambda run: run.receive(EVENTS, *paths))) == len(paths)


def test_from_a_thread(same: Same) -> None:
    """A thread publishes in an application context of its own."""
    [event] = same("factory", lambda run: run.receive(EVENTS, "/thread"))
    assert event.type == "work"


def test_from_another_process(same: Same) -> None:
    """A command, as a cron job or a worker of Celery runs it."""

    def scenario(run: Run) -> list[Received]:
        with run.listen(EVENTS) as browser:
            run.execute("-m", "flask", "publish", "cron")
            run.mark()
            return browser.read_to_mark()

    [event] = same("factory", scenario)
    assert json.loads(event.data) == {"from": "cron"}


def test_from_a_test_request_context(same: Same) -> None:
    """A script that makes itself a request."""

    def scenario(run: Run) -> list[Received]:
        with run.listen(EVENTS) as browser:
            run.execute("-m", "apps.factory")
            run.mark()
            return browser.read_to_mark()

    [event] = same("factory", scenario)
    assert event.type == "shell"


def test_past_the_library(same: Same) -> None:
    """Publishers in other languages write what 1.0 writes."""
    [event] = same("factory", lambda run: run.receive(EVENTS, "/raw"))
    assert event == Received("raw", '{"raw": 1}', "1", 10)


def test_both_versions_share_a_redis(both: Both) -> None:
    """What one publishes the other streams: so they can be deployed one after the other."""
    old, new = both("factory")
    for publisher, reader in ((old, new), (new, old)):
        with reader.listen(EVENTS) as browser:
            publisher.execute("-m", "flask", "publish", "deploy", redis=reader.redis)
            reader.mark()
            [event] = browser.read_to_mark()
        assert event == Received("cli", '{"from": "deploy"}', "", None)


@pytest.mark.parametrize("page", ["/page", "/result", "/messages", "/redis"])
def test_what_views_see(same: Same, page: str) -> None:
    """Addresses, what publish returns, messages as text, and the Redis for other things."""
    assert same("factory", lambda run: run.get(page))


@pytest.mark.parametrize("last", ["7", "", "nonsense"])
def test_last_event_id_is_ignored(same: Same, last: str) -> None:
    """A browser that reconnects gets what is published from then on."""

    def scenario(run: Run) -> list[Received]:
        run.get("/arguments/number%20as%20id")
        with run.listen(EVENTS, headers={"Last-Event-ID": last}) as browser:
            run.get("/data/text")
            run.mark()
            return browser.read_to_mark()

    assert [event.data for event in same("factory", scenario)] == ["hello"]


def test_two_browsers(same: Same) -> None:
    """Each one gets every event."""

    def scenario(run: Run) -> list[list[Received]]:
        with run.listen(EVENTS) as first, run.listen(EVENTS) as second:
            run.get("/data/text")
            run.get("/data/list")
            run.mark()
            return [first.read_to_mark(), second.read_to_mark()]

    first, second = same("factory", scenario)
    assert first == second
    assert len(first) == 2


def test_the_type_of_the_response(same: Same) -> None:
    """Status and type of the content."""

    def scenario(run: Run) -> tuple[int, str | None]:
        with run.listen(EVENTS) as browser:
            run.mark()
            return browser.response.status, browser.response.getheader("Content-Type")

    assert same("factory", scenario) == (200, "text/event-stream; charset=utf-8")


def test_access_by_session(same: Same) -> None:
    """A user without access to a channel gets no stream."""

    def scenario(run: Run) -> list[int]:
        statuses = [run.status("/stream?channel=user:alice")]
        run.get("/login/bob")
        return [*statuses, run.status("/stream?channel=user:alice")]

    assert same("access", scenario) == [403, 403]


def test_a_channel_for_each_user(same: Same) -> None:
    """Users hear what is for them and not what is for others."""

    def scenario(run: Run) -> list[Any]:
        run.get("/login/alice")
        channel = "user:alice"
        with run.listen(f"/stream?channel={channel}", channel) as browser:
            for page in ("/notify/alice", "/notify/bob", "/all"):
                run.get(page)
            run.mark(channel)
            events = browser.read_to_mark()
            headers = browser.response.headers
            return [events, headers["Access-Control-Allow-Origin"], headers["X-User"]]

    events, *headers = same("access", scenario)
    assert [event.data for event in events] == ['{"for": "alice"}']
    assert headers == ["*", "alice"]


def test_a_redirect_to_the_stream(same: Same) -> None:
    """A view leads to the stream, by the name of its endpoint."""

    def scenario(run: Run) -> str:
        run.get("/login/alice")
        return run.get("/mine")

    assert "/stream?channel=user:alice" in same("access", scenario)


def test_messages_that_keep_books(same: Same) -> None:
    """A subclass that counts who listens, in what it has overridden."""

    def scenario(run: Run) -> list[Any]:
        counts = [run.get("/online/room")]
        with run.listen("/counting?channel=room", "room") as browser:
            counts.append(run.get("/online/room"))
            run.get("/publish/counting?channel=room&data=x")
            run.mark("room")
            events = browser.read_to_mark()
        wait_until(lambda: run.get("/online/room") == counts[0], "nobody is counted any more")
        return [events, counts]

    events, counts = same("subclass", scenario)
    assert [event.data for event in events] == ["x"]
    assert [int(count) for count in counts] == [0, 1]


def test_messages_that_change_what_is_sent(same: Same) -> None:
    """A subclass that greets, leaves events out and changes others."""

    def scenario(run: Run) -> list[Received]:
        with run.listen("/changing?channel=room", "room") as browser:
            for page in ("data=quiet", "data=x&type=secret", "data=loud&type=shout"):
                run.get(f"/publish/changing?channel=room&{page}")
            run.mark("room")
            return browser.read_to_mark()

    assert [(event.type, event.data) for event in same("subclass", scenario)] == [
        ("welcome", '{"channel": "room"}'),
        ("message", "quiet"),
        ("shout", "LOUD"),
    ]


def test_messages_that_yield_objects_of_their_own(same: Same) -> None:
    """All that the view asks of them is how they look as text."""

    def scenario(run: Run) -> list[Received]:
        with run.listen("/numbering") as browser:
            for data in ("a", "b"):
                run.get(f"/publish/numbering?channel=sse&data={data}")
            run.mark()
            return browser.read_to_mark()

    assert [(event.id, event.data) for event in same("subclass", scenario)] == [
        ("1", "a"),
        ("2", "b"),
    ]


def test_a_view_and_publishing_that_are_overridden(same: Same) -> None:
    """A subclass adds a header to the stream, and wraps what it publishes."""

    def scenario(run: Run) -> list[Any]:
        with run.listen("/checking") as browser:
            run.get("/publish/checking?channel=sse&data=x")
            run.mark()
            return [browser.read_to_mark(), browser.response.headers["X-Stream"]]

    events, header = same("subclass", scenario)
    assert [event.data for event in events] == ['{"wrapped": "x"}']
    assert header == "checked"


def test_a_view_that_sends_again_what_was_missed(same: Same) -> None:
    """A subclass makes something of the Last-Event-ID."""

    def scenario(run: Run) -> list[Received]:
        headers = {"Last-Event-ID": "1"}
        with run.listen("/replaying", "replaying", headers) as browser:
            run.get("/publish/replaying?channel=replaying&data=live")
            run.mark("replaying")
            return browser.read_to_mark()

    assert [event.data for event in same("subclass", scenario)] == ["missed 2", "missed 3", "live"]


def test_a_view_of_ones_own(same: Same) -> None:
    """It streams the messages of a channel whose name is part of the path."""

    def scenario(run: Run) -> list[Received]:
        return run.receive(
            "/events/room", "/publish/room?n=1&type=a", "/publish/other?n=2", channel="room"
        )

    assert [event.type for event in same("views", scenario)] == ["a"]


def test_a_view_that_ends(same: Same) -> None:
    """It leaves the loop over the messages, and the response is over."""

    def scenario(run: Run) -> list[Received]:
        with run.listen("/until-done/job", "job") as browser:
            for query in ("n=1&type=progress", "n=2&type=done", "n=3"):
                run.get(f"/publish/job?{query}")
            return browser.read_to_end()

    assert [event.type for event in same("views", scenario)] == ["progress", "done"]


def test_a_view_of_something_else(same: Same) -> None:
    """It writes messages as lines of JSON."""

    def scenario(run: Run) -> list[str]:
        with run.listen("/lines", "lines") as browser:
            for number in (1, 2):
                run.get(f"/publish/lines?n={number}&type=t")
            return [browser.read_line(), browser.read_line()]

    first, _ = same("views", scenario)
    assert json.loads(first) == {"data": {"n": 1}, "type": "t"}


def test_a_view_with_a_format_of_its_own(same: Same) -> None:
    """It asks the request and the attributes of each message."""

    def scenario(run: Run) -> list[Received]:
        with run.listen("/own-format?channel=own", "own") as browser:
            run.get("/publish/own?n=4&type=double")
            return browser.read(1)

    assert same("views", scenario) == [Received("double", "8", "", None)]


@pytest.mark.parametrize("path", ["/stream", "/again", "/news", "/chat/live"])
def test_several_blueprints(same: Same, path: str) -> None:
    """Each streams what any of them has published on a channel; the provider is the app's."""
    events = same("several", lambda run: run.receive(path, "/publish"))
    assert [(event.type, event.data) for event in events] == [
        ("sse", '{"n":0,"tags":["a","b"]}'),
        ("news", '{"n":1,"tags":["a","b"]}'),
        ("chat", '{"n":2,"tags":["a","b"]}'),
    ]


def test_the_rules_of_several_blueprints(same: Same) -> None:
    """Names and addresses."""
    rules = json.loads(same("several", lambda run: run.get("/rules")))
    assert ["sse.stream", "/stream"] in rules


def test_the_contexts_of_messages(both: Both) -> None:
    """It uses `g`, Flask-Login's user, the session and the request, and they end after it."""

    def scenario(run: Run) -> tuple[list[Received], list[str]]:
        run.get("/login/alice")
        received = run.receive("/stream?channel=own", "/publish/own", channel="own")
        wait_until(lambda: "generator of alice" in run.get("/steps"), "the generator has ended")
        return received, json.loads(run.get("/steps"))

    (events, old_steps), (same_events, steps) = (scenario(run) for run in both("contexts"))
    assert events == same_events
    assert [event.type for event in events] == ["welcome", "message"]
    assert [step.split(",")[0] for step in steps] == [
        "generator of alice",
        "request of alice",
        "application of alice",
    ]
    # Since 3.1.2, Flask also runs 1.0's teardown functions when the view has returned.
    assert [step.split(",")[0] for step in old_steps[-3:]] == [step.split(",")[0] for step in steps]


def test_no_url(same: Same) -> None:
    """The stream is an error of the server's, and publishing a documented `KeyError`."""

    def scenario(run: Run) -> tuple[str, int]:
        return run.get("/publish"), run.status("/stream")

    text, _ = same("unconfigured", scenario)
    assert "Must set a redis connection URL in app config." in text


def quoted(name: str) -> str:
    """Return a name as part of an address."""
    return quote(name, safe="")
