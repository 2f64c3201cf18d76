"""The stages of a loop's shutdown."""

from flask_sse._hub.shutdown import GRACE, Shutdown, Stage


def test_the_stages() -> None:
    """They follow each other, and waiting threads learn about the last one."""
    shutdown = Shutdown()
    assert repr(shutdown) == "<Shutdown SERVING>"
    assert not shutdown.has_begun
    shutdown.begin(5.0)
    assert repr(shutdown) == "<Shutdown STOPPING>"
    assert shutdown.has_begun
    assert not shutdown.has_ended.is_set()
    shutdown.finish()
    assert repr(shutdown) == "<Shutdown STOPPED>"
    assert shutdown.has_begun
    assert shutdown.has_ended.is_set()


def test_the_time_for_clients() -> None:
    """It counts from the beginning, which happens only once, and does not end with the last one."""
    shutdown = Shutdown()
    assert not shutdown.is_overdue(1e9)
    shutdown.begin(5.0)
    shutdown.begin(1e9)
    assert not shutdown.is_overdue(5.0 + GRACE)
    assert shutdown.is_overdue(5.0 + GRACE * 1.5)
    shutdown.finish()
    assert shutdown.is_overdue(5.0 + GRACE * 1.5), "the server may still be writing to some"


def test_a_loop_that_has_nothing_to_do() -> None:
    """It ends without having been told to, and then it can't be told to any more."""
    shutdown = Shutdown()
    shutdown.finish()
    shutdown.begin(5.0)
    assert shutdown.stage is Stage.STOPPED
    assert not shutdown.is_overdue(1e9)
