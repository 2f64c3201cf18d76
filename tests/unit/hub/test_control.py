"""The streams of clients with a name: which wait, which end, and which are checked again."""

import logging
from typing import Final

import pytest
import redis

from flask_sse._event.channel_name import CONTROL
from flask_sse._event.revocation import Identity, Revocation
from flask_sse._hub.complaints import Complaints
from flask_sse._hub.control import Control, Wanted
from flask_sse._hub.deadlines import Deadlines
from flask_sse._hub.subscriber import Subscriber

CHANNEL: Final = b"news"
NOW: Final = 1000.0
ALL: Final = 1 << 30
NO_PERMISSION: Final = redis.ResponseError(
    "NOPERM User app has no permissions to access one of the channels used as arguments"
)


class Rig:
    """What a hub's loop has for them."""

    def __init__(self) -> None:
        self.changed: list[bytes] = []
        self.deadlines = Deadlines()
        self.control = Control(self.deadlines, Complaints(), self.changed.append)

    def wait(self, client: str = "alice", since: float = NOW) -> Subscriber:
        """Add a stream that waits."""
        stream = Subscriber(limit=1)
        stream.channel = CHANNEL
        self.control.wait(stream, Identity(client, since))
        return stream

    def serve(
        self, client: str = "alice", since: float = NOW, now: float = NOW, channel: bytes = CHANNEL
    ) -> Subscriber:
        """Add a stream that begins."""
        stream = Subscriber(limit=1)
        stream.channel = channel
        self.control.serve(stream, Identity(client, since), now)
        return stream

    def revoke(
        self, client: str | None = None, channel: bytes | None = None, now: float = NOW
    ) -> None:
        """Let a revocation arrive."""
        self.control.arrived(Revocation(client, channel).to_payload(), now)

    def ended(self, now: float = NOW) -> dict[object, str | None]:
        """Return the streams that must end by now, with the reasons."""
        return {one.client: one.reason for one in self.deadlines.take(now, ALL)}


@pytest.fixture
def rig() -> Rig:
    """Return one."""
    return Rig()


def test_streams_wait_for_the_subscription(rig: Rig) -> None:
    """The first one asks for it, and all begin when it is confirmed."""
    wanted = Wanted({CHANNEL: 0}, rig.control)
    assert [*wanted] == [CHANNEL]
    assert CONTROL not in wanted
    first, second, gone = rig.wait(), rig.wait("bob"), rig.wait("eve")
    assert rig.changed[0] == CONTROL
    assert [*wanted] == [CHANNEL, CONTROL]
    assert len(wanted) == 2
    assert CONTROL in wanted
    assert CHANNEL in wanted
    assert rig.control.is_awaited
    rig.control.discard(gone)
    assert rig.control.confirmed(NOW) == [first, second]
    assert not rig.control.is_awaited
    assert not rig.ended(NOW + 100)
    # Other streams come later, perhaps soon.
    rig.control.discard(first)
    rig.control.discard(second)
    assert CONTROL in wanted


def test_streams_that_come_while_the_subscription_is_lost(rig: Rig) -> None:
    """They are checked again, even if they have waited for a moment only."""
    rig.control.confirmed(NOW)
    waiting = rig.wait(since=NOW + 9.9)
    assert rig.control.confirmed(NOW + 10) == [waiting]
    assert not rig.ended(NOW + 9.9)
    assert rig.ended(NOW + 20) == {waiting: "redis"}


def test_which_streams_end(rig: Rig) -> None:
    """Those of the client, those of the channel, or those of the client on the channel."""
    rig.control.confirmed(NOW)
    alice, bob, other = rig.serve(), rig.serve("bob"), rig.serve(channel=b"chat")
    rig.revoke("alice", b"chat")
    assert rig.ended() == {other: "disconnect"}
    rig.control.discard(other)
    rig.revoke("bob")
    assert rig.ended() == {bob: "disconnect"}
    rig.control.discard(bob)
    rig.revoke(channel=CHANNEL)
    assert rig.ended() == {alice: "disconnect"}


def test_a_revocation_between_the_check_and_the_stream(rig: Rig) -> None:
    """It applies to streams that were let in before it, and not to those let in after it."""
    rig.control.confirmed(NOW)
    rig.revoke("alice", now=NOW + 5)
    rig.revoke(channel=b"chat", now=NOW + 6)
    early, unrelated = rig.serve(since=NOW + 4, now=NOW + 7), rig.serve("bob", NOW + 4, NOW + 7)
    on_channel = rig.serve("bob", NOW + 6, NOW + 7, b"chat")
    checked = rig.serve(since=NOW + 5.5, now=NOW + 7)
    assert rig.ended(NOW + 7) == {early: "disconnect", on_channel: "disconnect"}
    assert not rig.ended(NOW + 100)
    for stream in (early, unrelated, on_channel, checked):
        rig.control.discard(stream)


def test_a_stream_that_has_taken_too_long(rig: Rig) -> None:
    """It is checked again, since a revocation may have been missed or forgotten."""
    waiting = rig.wait(since=NOW)
    quick = rig.wait(since=NOW + 1.5)
    rig.control.confirmed(NOW + 3)
    late = rig.serve(since=NOW + 4, now=NOW + 15)
    assert not rig.ended(NOW + 3)
    assert rig.ended(NOW + 100) == {waiting: "redis", late: "redis"}
    rig.control.discard(quick)


def test_a_gap_in_the_subscription(rig: Rig) -> None:
    """All streams from before it end within ten seconds, and not together."""
    rig.control.confirmed(NOW)
    before = [rig.serve(since=NOW, now=NOW) for _ in range(1000)]
    after = rig.wait(since=NOW + 59.9)
    assert rig.control.confirmed(NOW + 60) == [after]
    times = [one.at for one in rig.deadlines.take(NOW + 70, ALL)]
    # The other one may have missed a revocation while it waited.
    assert len(times) == len(before) + 1
    for second in range(10):
        begin = NOW + 60 + second
        assert 50 < sum(begin <= at <= begin + 1 for at in times) < 200


def test_a_subscription_that_does_not_come_back(rig: Rig) -> None:
    """Streams that still get events can't stay for longer than a minute without revocations."""
    rig.control.keep_time(NOW - 100, is_missing=True)
    rig.control.confirmed(NOW)
    rig.control.keep_time(NOW, is_missing=False)
    several = [rig.serve() for _ in range(100)]
    for second in range(60):
        rig.control.keep_time(NOW + second, is_missing=True)
    assert not rig.ended(NOW + 100)
    # It is back in time.
    rig.control.keep_time(NOW + 60, is_missing=False)
    for second in range(61, 120):
        rig.control.keep_time(NOW + second, is_missing=True)
    assert not rig.ended(NOW + 200)
    # They don't end together.
    for fraction in range(50):
        rig.control.keep_time(NOW + 121 + fraction / 50, is_missing=True)
    ends = [one.at for one in rig.deadlines.take(NOW + 131, ALL)]
    assert len(ends) == len(several)
    assert NOW + 121 <= ends[0] < NOW + 123
    assert NOW + 129 < ends[-1] <= NOW + 131


def test_a_channel_that_redis_forbids(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Streams are refused with one line in the log, which names the rule to add."""
    wanted = Wanted((), rig.control)
    for _ in range(3):
        stream = rig.wait()
        assert rig.control.refused(NO_PERMISSION, NOW) == [stream]
        assert CONTROL not in wanted
    assert caplog.text.count("streams with a client are refused") == 1
    assert "run ACL SETUSER <user> &flask-sse:control" in caplog.text
    # It is asked for again, in case somebody has added the rule.
    stream = rig.wait()
    assert CONTROL in wanted
    assert rig.control.confirmed(NOW) == [stream]
    assert rig.control.refused(redis.ResponseError("ERR other"), NOW) == []
    assert rig.ended(NOW + 10) == {stream: "redis"}
    assert caplog.text.count("are refused") == 2
    assert caplog.text.count("ACL SETUSER") == 1


def test_malformed_revocations(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """They end nothing, and few of them are logged."""
    caplog.set_level(logging.WARNING)
    rig.control.confirmed(NOW)
    stream = rig.serve()
    for payload in (b"nonsense", b"{}", b'{"client": 7}', b"[" * 100_000) * 2:
        rig.control.arrived(payload, NOW)
    assert not rig.ended(NOW + 100)
    assert caplog.text.count("dropped malformed event") == 4
    assert "number 1, on channel 'flask-sse:control'" in caplog.text
    rig.control.discard(stream)
