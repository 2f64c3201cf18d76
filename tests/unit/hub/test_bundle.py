"""Streams of several channels, without Redis: what their clients get, whatever happens when."""

import json
import random
import socket
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final

import pytest

from flask_sse._callbacks.stream_signals import END
from flask_sse._hub.batch import Batch
from flask_sse._hub.bundle import Bundle
from flask_sse._hub.channel import Channel
from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.listener import Client, Listener
from flask_sse._hub.log_queries import RING_BYTES
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._hub.subscriber import Follower
from flask_sse._log.composite_id import parse
from flask_sse._log.decoding import Event, Foreign
from flask_sse._log.position import UNKNOWN
from tests.support.log import Log
from tests.support.parser import Parser
from tests.support.waiting import PATIENCE

LIMIT: Final = 1 << 12
UNLOGGED: Final = b"clock"


class Peer:
    """A client: a subscriber, or a connection. It keeps its last id when its stream is cut."""

    def __init__(self, rig: "Rig", names: tuple[bytes, ...], *, reads: bool) -> None:
        self.names = names
        self.logged = [name for name in names if name != UNLOGGED]
        self.last_id = ""
        self.opened = 0
        # The number of the last event of each channel, or of that before the first one.
        self.seen: dict[bytes, int] = {}
        self.resets: Counter[bytes] = Counter()
        self.got: dict[bytes, list[int]] = defaultdict(list)
        self.ended: set[bytes] = set()
        self._rig = rig
        self._reads = reads
        self._parser = Parser()
        self._socket: socket.socket | None = None
        self.client: Follower | Connection = self._connect()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended with its channels."""
        return self.client.reason == END

    def _connect(self) -> Follower | Connection:
        """Begin a stream, which resumes from the last id."""
        self._parser = Parser()
        self.opened = 0
        marks = parse(self.last_id, self.logged) if self.last_id else ()
        if marks is None:
            marks = [UNKNOWN] * len(self.logged)
        client: Follower | Connection
        if self._reads:
            client = Follower(LIMIT, marks=marks)
            client.when_drained(partial(self._rig.note_drained, self))
        else:
            ours, theirs = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            ours.setblocking(False)
            theirs.settimeout(PATIENCE)
            self._socket = theirs
            terms = Terms(b":\n", lambda: b"retry:7\n", LIMIT, lambda _: None)
            client = Connection(ours.detach(), b"", terms, chunked=False, callbacks=[], marks=marks)
        client.channel = self.names
        return client

    def read(self) -> None:
        """Take what has arrived."""
        if isinstance(self.client, Follower):
            for batch in self.client.take(timeout=0) or ():
                self._parser.feed(batch.frames)
        else:
            assert self._socket is not None
            self._socket.setblocking(False)
            with suppress(BlockingIOError):
                self._parser.feed(self._socket.recv(1 << 20))
        events, self._parser.events = self._parser.events, []
        for event in events:
            self._check(event.type, event.data, event.id)
            self.last_id = event.id or self.last_id

    def _check(self, kind: str, data: str, event_id: str) -> None:
        if kind == "sse.open":
            self.opened += 1
            assert self.opened == 1
            said = json.loads(data)
            assert {*said["channels"]} == {name.decode() for name in {*self.names} - self.ended}
            for name in {*self.logged} - self.ended:
                # Where a client begins is the hub's choice; one that has asked for more is told.
                assert said["channels"][name.decode()] or self.seen.setdefault(name, -1) is not None
            return
        assert self.opened or not self.logged
        if kind != "message":
            name = json.loads(data)["channel"].encode()
            assert name not in self.ended
            if kind == "sse.end":
                assert self.seen.get(name, -1) in {-1, *self._rig.ends[name]}
                self.ended.add(name)
            else:
                self.resets[name] += 1
                self.seen[name] = -1
            return
        channel, number = data.split(" ")
        name = channel.encode()
        assert name in {*self.names} - self.ended
        self.got[name].append(int(number))
        if name == UNLOGGED:
            return
        before = self.seen.get(name, -1)
        assert before == -1 or int(number) == before + 1, f"{data} after {before}"
        self.seen[name] = int(number)

    def cut(self) -> None:
        """Lose the connection, with all that has not been read, and come back."""
        self._rig.drop(self.client)
        self.close()
        self.client = self._connect()
        if {*self.names} == self.ended:
            # The view answers 204.
            self.client.end(END)
        else:
            self._rig.add(self)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Rig:
    """Some channels with their logs, bundles of them, and Redis, which takes its time."""

    def __init__(self, names: list[bytes], stack: ExitStack) -> None:
        self.logs = {name: Log(name.decode(), length=30) for name in names if name != UNLOGGED}
        self.channels: dict[bytes, Channel] = {}
        self.bundles: dict[tuple[bytes, ...], Bundle] = {}
        self.peers: list[Peer] = []
        self.drained: list[Peer] = []
        self.on_the_way: dict[bytes, list[Event]] = defaultdict(list)
        self.asking: set[bytes] = set()
        self.numbers: Counter[bytes] = Counter()
        self.ends: dict[bytes, set[int]] = defaultdict(set)
        """The numbers of the events before each end."""
        stack.callback(self.close)

    def add(self, peer: Peer) -> None:
        """Let a client begin its stream."""
        names = peer.names
        if names not in self.bundles:
            self.bundles[names] = Bundle([self._channel(name) for name in names])
        peer.client.is_behind = False
        bundle = self.bundles[names]
        bundle.add(peer.client)
        for channel in bundle.channels:
            self.give_up(channel.confirm())

    def _channel(self, name: bytes) -> Channel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = (
                Channel(name)
                if name == UNLOGGED
                else LoggedChannel(
                    name,
                    lambda one: self.asking.add(one.name),
                    lambda: None,
                    lambda: RING_BYTES if len(self.numbers) % 2 else 2000,
                    sends_latest=False,
                )
            )
        return channel

    def publish(self, name: bytes, size: int = 0) -> None:
        """Publish an event, which arrives later."""
        self.numbers[name] += 1
        data = b"%b %d" % (name, self.numbers[name])
        if name == UNLOGGED:
            self.on_the_way[name].append(Foreign(b"data:%b\nid:own\n\n" % data, data))
            return
        [entry] = self.logs[name].add(1, data.decode())
        large = entry._replace(frame=entry.frame + b":%b\n" % (b"x" * size))
        self.logs[name].entries[-1] = large
        self.on_the_way[name].append(large)

    def end(self, name: bytes) -> None:
        """End a channel, unless it has ended."""
        log = self.logs[name]
        if not log.has_ended:
            self.ends[name].add(self.numbers[name])
            self.on_the_way[name].append(log.end(name))

    def arrive(self, name: bytes) -> None:
        """Let the published events arrive."""
        events, self.on_the_way[name] = self.on_the_way[name], []
        channel = self.channels.get(name)
        if channel is None or not events:
            return
        if isinstance(channel, LoggedChannel):
            self.give_up(channel.arrived(events))
        else:
            frames = b"".join([event.frame for event in events])
            payloads = [event.payload or b"" for event in events]
            self.give_up(channel.send(Batch(payloads, frames), lambda: None))

    def answer(self, name: bytes) -> None:
        """Let Redis answer the questions about a log."""
        channel = self.channels.get(name)
        self.asking.discard(name)
        if isinstance(channel, LoggedChannel):
            for after, is_fill in [*channel.questions()]:
                self.arrive(name)
                page = self.logs[name].page(after)
                self.give_up(channel.answered(page, is_fill=is_fill))

    def lose(self, name: bytes) -> None:
        """Let Redis lose a log; the hub compares it later."""
        self.logs[name] = Log(f"{name.decode()}{self.numbers[name]}", length=30)
        self.on_the_way[name].clear()

    def compare(self, name: bytes) -> None:
        """Let the hub compare a log, as after a new subscription."""
        channel = self.channels.get(name)
        if isinstance(channel, LoggedChannel):
            self.give_up(channel.begin())

    def write(self) -> None:
        """Let the hub continue with those that have taken something."""
        for peer in self.peers:
            if isinstance(peer.client, Connection) and peer.client.is_lagging:
                peer.client.flush()
                if peer.client.is_open and not peer.client.is_closing:
                    self.give_up(self.bundles[peer.names].place(peer.client))
        drained, self.drained = self.drained, []
        for peer in drained:
            self.give_up(self.bundles[peer.names].refill(peer.client))

    def note_drained(self, peer: Peer) -> None:
        """Note that a client has taken everything."""
        self.drained.append(peer)

    def drop(self, client: Client) -> None:
        """Forget a client."""
        assert isinstance(client.channel, tuple)
        self.bundles[client.channel].discard(client)

    def give_up(self, listeners: Sequence[Listener]) -> None:
        """Cut those that were lost, and forget those whose streams have ended."""
        for client in {listener.whole for listener in listeners}:
            self.drop(client)
            for peer in self.peers:
                if peer.client is client and not peer.is_over:
                    peer.cut()

    def settle(self) -> None:
        """Let everything happen until all clients have everything."""
        for name in self.logs:
            self.compare(name)
        for _ in range(200):
            for name in [*self.channels]:
                self.arrive(name)
                self.answer(name)
            self.write()
            for peer in self.peers:
                peer.read()
        for name, log in self.logs.items():
            newest = self.numbers[name] if log.entries else -1
            for peer in self.peers:
                if name in {*peer.names} - peer.ended:
                    assert not log.has_ended
                    assert peer.seen.get(name) in {newest, -1}, name
        for peer in self.peers:
            assert peer.is_over == ({*peer.names} == peer.ended)

    def close(self) -> None:
        """Close all connections."""
        for peer in self.peers:
            peer.close()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens(seed: int) -> None:
    """Each channel is exact: no gap without a reset, nothing twice, and `sse.open` once.

    Nothing of a channel follows its end.
    """
    chance = random.Random(seed)
    ends = chance.choice([0.0, 0.2, 0.6])
    names = [b"a", b"b", b"c", b"d", b"e", UNLOGGED]
    with ExitStack() as stack:
        rig = Rig(names, stack)
        sets = [tuple(sorted(chance.sample(names, chance.randint(1, 6)))) for _ in range(3)]
        sets = [one if one != (UNLOGGED,) else (b"a",) for one in sets]
        for _ in range(5):
            peer = Peer(rig, chance.choice(sets), reads=chance.random() < 0.5)
            rig.peers.append(peer)
            rig.add(peer)
        for _ in range(chance.randint(50, 400)):
            name = chance.choice(names)
            peer = chance.choice(rig.peers)
            match chance.randint(0, 10):
                case 0 | 1 | 2:
                    rig.publish(name, chance.choice([0, 0, 0, 3000, 9000]))
                case 3 | 4:
                    rig.arrive(name)
                case 5:
                    rig.answer(name)
                case 6 | 7:
                    peer.read()
                    rig.write()
                case 8 if name != UNLOGGED and chance.random() < 0.3:
                    rig.lose(name)
                    if chance.random() < 0.5:
                        rig.compare(name)
                case 9 if name != UNLOGGED and chance.random() < ends:
                    rig.end(name)
                case _:
                    if chance.random() < 0.4:
                        peer.cut()
        rig.settle()
        live = [peer for peer in rig.peers if peer.ended or not peer.client.is_behind]
        assert len(live) == len(rig.peers), "in the end, everybody shares the bytes of the others"


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("number", [1, 3])
def test_the_end_of_one_channel(reads: bool, number: int) -> None:
    """Clients get the next event of another channel at once, without anything in between."""
    with ExitStack() as stack:
        rig = Rig([b"a", b"b", UNLOGGED], stack)
        rig.peers = [Peer(rig, (b"a", b"b", UNLOGGED), reads=reads) for _ in range(number)]
        for peer in rig.peers:
            rig.add(peer)
        rig.settle()
        rig.end(b"a")
        rig.publish(b"a")
        rig.arrive(b"a")
        for name in (b"b", UNLOGGED):
            rig.publish(name)
            rig.arrive(name)
        rig.arrive(b"b")
        for peer in rig.peers:
            peer.read()
            assert peer.ended == {b"a"}
            assert peer.got == {b"b": [1], UNLOGGED: [1]}
        rig.end(b"b")
        rig.arrive(b"b")
        rig.publish(UNLOGGED)
        rig.arrive(UNLOGGED)
        for peer in rig.peers:
            peer.read()
            assert peer.ended == {b"a", b"b"}
            assert peer.got[UNLOGGED] == [1, 2]
            assert not peer.is_over
