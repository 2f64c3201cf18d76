"""The benchmark's own checks: what the load generator must see for a table to mean something."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from .events import event_data
from .eventstream import CHUNKED, ENDED, PLAIN, GarbledError, Run, StreamParser
from .load import Faults, Load
from .machine import shortage
from .plan import read_plan
from .processes import Cores
from .publishers import LinePublisher
from .report import BUSY, CHANNELS, SCALE, SIDE_BY_SIDE, Figure, Rounds, as_text, transposed
from .results import Measured, of_channels, of_clients, sections
from .scenarios import many_channels
from .systems import FlaskSSE2, FlaskSSE2GThread, FlaskSSE2Sync, FloorPython, Place
from .views import BusyViews, ViewError

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(number: int, channel: int = 0, end: bytes = b"\n") -> bytes:
    """Return one event as a server writes it."""
    return b"id: 7" + end + b"data: " + event_data(channel, number) + end + end


def chunk(body: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%s\r\n" % (len(body), body)


@contextmanager
def sending(parts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Serve one client, sent ``parts``, and a publisher, answered a dot; yield both ports."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as door,
        closing(socket.create_server(("127.0.0.1", 0))) as control,
    ):

        def serve() -> None:
            publisher = control.accept()[0]
            with closing(publisher), closing(door.accept()[0]) as client:
                client.sendall(_HEAD)
                publisher.recv(1 << 16)
                client.sendall(b"".join(parts))
                publisher.sendall(b".")
                # Until the generator has gone.
                client.recv(1 << 16)
                client.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield door.getsockname()[1], control.getsockname()[1]
        thread.join(10)


def faults_of(parts: Sequence[bytes], published: int) -> Faults:
    """Return what the load generator says of ``parts`` after it has ``published`` events."""
    with (
        sending(parts) as (port, control),
        closing(LinePublisher(("127.0.0.1", control))) as publisher,
        closing(Load(port, publisher)) as load,
    ):
        load.connect([0], None, 10)
        load.publish(0, published)
        load.await_arrivals(published, 0.5)
        return load.verdict()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_every_split_of_the_bytes_reads_the_same(size: int, end: bytes) -> None:
    """Wherever reads end, within framing or a frame, the events are those that were sent."""
    body = b":\n\n" + b"".join(chunk(frame(number, end=end)) for number in range(20))
    stream = chunk(b":" + end + end) + body.removeprefix(b":\n\n")
    parser, rest, numbers = StreamParser(), CHUNKED, list[int]()
    for at in range(0, len(stream), size):
        rest, runs = parser.parse(rest, stream[at : at + size])
        numbers += [number for run in runs for number in range(run.first, run.last + 1)]
    assert numbers == list(range(20))
    assert rest == CHUNKED


def test_a_plain_body_and_joined_frames() -> None:
    """Frames need not be chunks, nor chunks frames."""
    joined = frame(0) + frame(1) + frame(2)
    assert StreamParser().parse(PLAIN, joined).runs == (Run(0, 0, 2),)
    halves = chunk(joined[:70]) + chunk(joined[70:])
    assert StreamParser().parse(CHUNKED, halves).runs == (Run(0, 0, 2),)


@pytest.mark.parametrize(
    "data",
    [
        b"xyz\r\n",
        b"3\r\n:\n\nab",
        chunk(b"data: bench-000000-00000000-other\n\n"),
        chunk(frame(3)[:-7] + frame(4)),
        chunk(b"dat: a\n\n"),
    ],
    ids=["size", "close", "data", "torn", "field"],
)
def test_garbled_bytes(data: bytes) -> None:
    """BrokenError framing, a torn frame and data that nobody published are told."""
    with pytest.raises(GarbledError):
        StreamParser().parse(CHUNKED, data)


def test_the_final_chunk() -> None:
    """A stream that the server ends is told."""
    rest, runs = StreamParser().parse(CHUNKED, chunk(frame(0)) + b"0\r\n\r\n")
    assert (rest.due, runs) == (ENDED, (Run(0, 0, 0),))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([frame(0), frame(1), frame(2)], {}),
        ([frame(0), frame(2)], {"lost": 1}),
        ([frame(0), frame(1)], {"lost": 1}),
        ([frame(0), frame(1), frame(1), frame(2)], {"doubled": 1}),
        ([frame(0), frame(2), frame(1)], {"unordered": 1}),
        ([frame(0), frame(1), frame(2, channel=5)], {"lost": 1, "foreign": 1}),
    ],
    ids=["right", "gap", "tail", "doubled", "unordered", "foreign"],
)
def test_deliveries(parts: Sequence[bytes], expected: dict[str, int]) -> None:
    """What was lost, doubled, out of order or somebody else's is counted as that."""
    faults = faults_of([chunk(part) for part in parts], 3)
    kinds = ("lost", "doubled", "unordered", "foreign", "garbled", "ended")
    assert {kind: getattr(faults, kind) for kind in kinds if getattr(faults, kind)} == expected


def test_an_ended_stream_loses_what_is_still_due() -> None:
    """The final chunk counts as an ended stream, the events after it as lost."""
    faults = faults_of([chunk(frame(0)), b"0\r\n\r\n"], 3)
    assert (faults.ended, faults.lost) == (1, 2)


def test_medians_and_ratios() -> None:
    """A ratio is the median of the rounds' ratios, not the ratio of the medians."""
    rounds = Rounds()
    for ours, theirs in ((1.0, 2.0), (4.0, 4.0), (9.0, 3.0)):
        rounds.add("ours", {"cpu_us": ours})
        rounds.add("theirs", {"cpu_us": theirs})
    assert rounds.median("ours", "cpu_us") == 4.0
    assert rounds.ratio("ours", "theirs", "cpu_us") == 1.0
    assert rounds.ratio("ours", "theirs", "p50_ms") is None


def test_clients_connect_from_several_addresses() -> None:
    """One address has ports for some of the clients only, so the next ones have another."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as door,
        closing(LinePublisher(door.getsockname()[:2])) as publisher,
        closing(Load(door.getsockname()[1], publisher, clients_an_address=2)) as load,
        closing(door.accept()[0]),
    ):

        def serve() -> None:
            for client, (address, _) in (door.accept() for _ in range(5)):
                clients.append(client)
                addresses.append(address)
                client.sendall(_HEAD)

        clients, addresses = list[socket.socket](), list[str]()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        load.connect([0] * 5, None, 10)
        thread.join(10)
        for client in clients:
            client.close()
    assert addresses == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.3"]


@contextmanager
def answering(answers: Sequence[bytes]) -> Iterator[tuple[Load, int]]:
    """Serve a view that answers each request with the next of ``answers``; yield load and port."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as door,
        closing(LinePublisher(door.getsockname()[:2])) as publisher,
        closing(Load(door.getsockname()[1], publisher)) as load,
        closing(door.accept()[0]),
    ):

        def serve() -> None:
            for answer in answers:
                with closing(door.accept()[0]) as client:
                    client.recv(1 << 16)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield load, door.getsockname()[1]
        thread.join(10)


def test_busy_views_are_requested_again() -> None:
    """Each client requests the view again once it is answered."""
    done = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"
    with (
        answering([done] * 7) as (load, port),
        closing(BusyViews(load, port, 2)) as views,
    ):
        views.await_answers(7, 10)
        assert views.answered == 7


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Oops\r\n\r\ndone", b"HTTP/1.1 200 OK\r\n\r\nother", b""],
    ids=["status", "body", "nothing"],
)
def test_a_view_that_fails(answer: bytes) -> None:
    """A wrong answer does not count as a view."""
    with answering([answer]) as (load, port), closing(BusyViews(load, port, 1)) as views:
        with pytest.raises(ViewError, match="the view was answered"):
            views.await_answers(1, 10)
        assert views.answered == 0


def test_a_view_without_an_answer() -> None:
    """A server that does not get to its views is told."""
    with (
        answering([]) as (load, port),
        closing(BusyViews(load, port, 1)) as views,
        pytest.raises(ViewError, match="0 of 1 views answered"),
    ):
        views.await_answers(1, 0.01)


@pytest.mark.parametrize(
    ("available", "server"),
    [([0], (0,)), ([2, 5], (2, 5)), ([0, 1, 2], (0, 2)), ([0, 1, 2, 3], (0, 3))],
)
def test_cores(
    monkeypatch: pytest.MonkeyPatch, available: list[int], server: tuple[int, ...]
) -> None:
    """The server's second core is one that the load generator does not use, if there is one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(available))
    cores = Cores.choose()
    assert cores.server == (available[0],)
    assert cores.with_second().server == server


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not allow enough of them, it is said how many are needed."""
    limits = {resource.RLIMIT_NOFILE: (1024, 20_000)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert shortage(10_000) is None
    reason = shortage(50_000)
    assert reason
    assert reason.startswith("50,000 clients need 56,055 open files, 20,000 are allowed")


def test_the_large_number_of_clients() -> None:
    """``--large`` adds a size, which is small in a smoke run and can be given."""
    assert read_plan([]).sizes == (1_000, 10_000)
    assert read_plan(["--large"]).sizes == (1_000, 10_000, 50_000)
    assert read_plan(["--large", "20000"]).sizes == (1_000, 10_000, 20_000)
    assert read_plan(["--smoke", "--large"]).sizes == (100, 300, 1_000)


def test_the_workers_share_an_environment() -> None:
    """What differs between the three systems of this code is the command, not what is installed."""
    three = (FlaskSSE2, FlaskSSE2GThread, FlaskSSE2Sync)
    assert len({system.name for system in three}) == 3
    assert len({system.command for system in three}) == 3
    assert {(system.environment, system.requirements) for system in three} == {
        ("flask-sse-2", FlaskSSE2.requirements)
    }
    assert [system.publishes for system in three] == [True, False, False]


def test_grid() -> None:
    """A missing figure says why, if that is known; a system without any figure is left out."""
    rounds = Rounds()
    rounds.add("ours, 1,000 clients", {"kib": 1.04})
    rounds.add("ours, 10,000 clients", {"kib": 1.5})
    rounds.add("theirs, 1,000 clients", {"kib": 1234.0})
    names, variants = ["ours", "theirs", "absent"], [of_clients(n) for n in (1000, 10000, 50000)]
    assert rounds.grid(Figure("kib", "KiB", 1), names, variants, {variants[2]: "too few"}) == [
        ["", "1,000 clients", "10,000 clients", "50,000 clients"],
        ["ours", "1.0", "1.5", "too few"],
        ["theirs", "1,234.0", "n/a", "too few"],
    ]


def test_grid_of_ratios() -> None:
    """Each variant is compared with the same variant of the reference, if both were measured."""
    rounds = Rounds()
    rounds.add("ours, slow", {"cpu_us": 3.0})
    rounds.add("ours, fast", {"cpu_us": 8.0})
    rounds.add("theirs, slow", {"cpu_us": 2.0})
    names, variants = ["ours", "theirs", "absent"], ["slow", "fast"]
    assert rounds.ratio_grid(Figure("cpu_us", "CPU", 1), names, variants, "theirs") == [
        ["", "slow", "fast"],
        ["ours", "1.50", "n/a"],
        ["theirs", "1.00", "n/a"],
    ]


def test_many_channels(tmp_path: Path) -> None:
    """Each client of the floor in Python receives all events of its channel, and no others."""
    place = Place(tmp_path, Cores.choose())
    place.logs.mkdir()
    figures, faults = many_channels(FloorPython(), place, 30, 300.0, 0.2)
    assert not faults, faults
    assert figures.keys() >= {column.key for column in CHANNELS}


def test_loads_of_many_channels() -> None:
    """Each number of channels is measured at each rate; without one of them, nothing is."""
    plan = read_plan(["--channels", "10", "20", "--channel-rates", "5", "--systems", "--scale"])
    assert plan.channel_loads == ((10, 5.0), (20, 5.0))
    for option in ("--channels", "--channel-rates"):
        plan = read_plan([option, "--systems", "--scale", "--busy-clients", "0"])
        assert plan.channel_loads == ()
        assert plan.needed == set()


def test_all_tables() -> None:
    """All systems and figures turn up in the tables, whose columns are aligned to the right."""
    plan = read_plan(["--large"])
    measured = Measured(shortages={50_000: "too few"})
    for name in plan.systems:
        measured.side_by_side.add(name, {figure.key: 12.0 for figure in SIDE_BY_SIDE})
    for name in plan.busy_systems:
        measured.busy.add(name, {figure.key: 1234.0 for figure in BUSY})
    for count in plan.scale:
        for name in plan.scale_systems:
            figures = {figure.key: float(count) for figure in SCALE}
            measured.scale.add(f"{name}, {of_clients(count)}", figures)
    for count, rate in plan.channel_loads:
        for name in plan.channel_systems:
            figures = {figure.key: count / rate for figure in CHANNELS}
            measured.channels.add(f"{name}, {of_channels(count, rate)}", figures)
    tables = {section.heading: section.rows for section in sections(plan, measured)}
    assert tables["1,000 clients of one channel"][0][1:] == list(plan.systems)
    busy = tables["1,000 clients of one channel, while views are busy"]
    assert busy[0][1:] == list(plan.busy_systems)
    assert [row[0] for row in busy[1:]] == [figure.heading for figure in BUSY]
    memory = {row[0]: row[1:] for row in tables["KiB per client"]}
    assert memory["flask-sse-2-sync"] == ["1,000.0", "10,000.0", "too few open files"]
    more = tables["More clients of one channel"]
    assert [row[0] for row in more[1:]] == [*measured.scale.figures]
    growth = tables["Growth with the number of clients"]
    assert growth[1][:2] == ("flask-sse-2, 10,000 clients / flask-sse-2, 1,000 clients", "10.00")
    costs = tables["Channels with one client each: CPU µs per event"]
    assert costs[0][1:] == [
        "1,000 channels, 1,000 events/s",
        "1,000 channels, 5,000 events/s",
        "10,000 channels, 1,000 events/s",
        "10,000 channels, 5,000 events/s",
    ]
    assert [row[0] for row in costs[1:]] == list(plan.channel_systems)
    assert costs[1][1:] == ["1.0", "0.2", "10.0", "2.0"]
    to_nchan = tables["Channels with one client each: CPU time per event, divided by that of nchan"]
    assert [row[0] for row in to_nchan[1:]] == list(plan.channel_systems)
    figures_of_all = tables["Channels with one client each: all figures"]
    assert [row[0] for row in figures_of_all[1:]] == [*measured.channels.figures]
    growth = tables["Growth with the number of channels"]
    assert growth[1][:2] == (
        f"flask-sse-2, {costs[0][3]} / flask-sse-2, {costs[0][1]}",
        "10.00",
    )
    for table in as_text(sections(plan, measured)).split("\n\n"):
        _, *lines = table.splitlines()
        assert len({len(line) for line in lines}) == 1


def test_transposed() -> None:
    """Rows become columns; a table without rows stays one."""
    assert transposed([["", "a"], ["x", "1"]]) == [("", "x"), ("a", "1")]
    assert transposed([]) == []
