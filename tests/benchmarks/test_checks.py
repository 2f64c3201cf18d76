"""The benchmark's own checks: what the load generator must see for a table to mean something."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from .events import event_data
from .eventstream import CHUNKED, ENDED, PLAIN, GarbledError, Run, StreamParser
from .load import Faults, Load
from .processes import Cores
from .publishers import LinePublisher
from .report import Rounds
from .systems import FlaskSSE2, FlaskSSE2GThread, FlaskSSE2Sync

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


def test_the_workers_share_an_environment() -> None:
    """What differs between the three systems of this code is the command, not what is installed."""
    three = (FlaskSSE2, FlaskSSE2GThread, FlaskSSE2Sync)
    assert len({system.name for system in three}) == 3
    assert len({system.command for system in three}) == 3
    assert {(system.environment, system.requirements) for system in three} == {
        ("flask-sse-2", FlaskSSE2.requirements)
    }
    assert [system.publishes for system in three] == [True, False, False]
