"""The places for streams: limited by a setting, or by the number of descriptors."""

import resource
import threading
from pathlib import Path

import pytest

from flask_sse._streaming.limit import Places, nine_tenths_of_descriptors
from tests.support.interrupting import run_with_interruptions


def test_nine_tenths_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets do not count as used, since most of them are clients that wait for their turn."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10_000, 10_000))
    places = nine_tenths_of_descriptors()
    assert places is not None
    # Other tests in this process use some descriptors.
    assert 8_000 < places < 9_000


def test_without_a_list_of_descriptors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no /proc is mounted, the same number is found in another way."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    places = nine_tenths_of_descriptors()
    monkeypatch.setattr("flask_sse._streaming.limit._DESCRIPTORS", str(tmp_path / "missing"))
    assert nine_tenths_of_descriptors() == places


def test_there_is_always_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with too few descriptors still serves one stream."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert nine_tenths_of_descriptors() == 1


def test_without_a_limit_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process may open any number of files, any number of streams may be open."""
    infinity = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (infinity, infinity))
    assert nine_tenths_of_descriptors() is None
    places = Places(None, "nothing")
    assert all(places.take() for _ in range(1000))
    places.free()


def test_windows_has_no_such_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also lacks the module for the limit."""
    monkeypatch.setattr("sys.platform", "win32")
    assert nine_tenths_of_descriptors() is None


def test_applications_without_a_setting_share_the_processs_places() -> None:
    """Two applications in a process can't each take nine tenths."""
    assert Places.of(None) is Places.of(None)
    assert Places.of(5) is not Places.of(5)


def test_a_limit() -> None:
    """As many streams may be open at the same time, whichever end."""
    places = Places(3, "a limit")
    for _ in range(3):
        assert [bool(places.take()) for _ in range(4)] == [True, True, True, False]
        places.free()
        assert [bool(places.take()) for _ in range(2)] == [True, False]
        for _ in range(3):
            places.free()


def test_a_place_is_released_once() -> None:
    """A stream that is closed twice frees one place."""
    places = Places(2, "a limit")
    first, _ = places.take(), places.take()
    assert first is not None
    first.release()
    first.release()
    assert [bool(places.take()) for _ in range(2)] == [True, False]


def test_a_limit_in_many_threads() -> None:
    """No place is taken twice, and none is lost."""
    places = Places(4, "a limit")
    used: list[None] = []
    most = 0

    def use() -> None:
        nonlocal most
        for _ in range(2000):
            if places.take():
                used.append(None)
                most = max(most, len(used))
                used.pop()
                places.free()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 4
    assert [bool(places.take()) for _ in range(5)] == [True] * 4 + [False]


def test_streams_that_the_garbage_collector_closes() -> None:
    """It may run at any time, also while a place is taken or freed."""
    places = Places(2, "a limit")
    opened: list[None] = []

    def use() -> None:
        if places.take():
            opened.append(None)

    def close() -> None:
        if opened:
            opened.pop()
            places.free()

    run_with_interruptions(use, close)
    while opened:
        close()
    assert [bool(places.take()) for _ in range(3)] == [True, True, False]
