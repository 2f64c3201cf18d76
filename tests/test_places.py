"""The places for streams: limited by a setting, or by the number of descriptors."""

import resource

import pytest

from flask_sse._places import Places, nine_tenths_of_descriptors


def test_nine_tenths_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets do not count as used, since most of them are clients that wait for their turn."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    places = nine_tenths_of_descriptors()
    assert places is not None
    assert 800 < places < 900


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
    assert all(places.enter() for _ in range(1000))
    places.exit()


def test_windows_has_no_such_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also lacks the module for the limit."""
    monkeypatch.setattr("sys.platform", "win32")
    assert nine_tenths_of_descriptors() is None


def test_applications_without_a_setting_share_the_processs_places() -> None:
    """Two applications in a process can't each take nine tenths."""
    assert Places.of(None) is Places.of(None)
    assert Places.of(5) is not Places.of(5)
