"""Waiting for descriptors, with epoll and on systems that have none."""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from flask_sse._system.poller import READ, Poller


@pytest.fixture(params=["epoll", "other"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    """Return a poller on epoll, and one on Python's default selector."""
    if request.param == "other":
        monkeypatch.setattr("flask_sse._system.greenlets.new_epoll", lambda: None)
    with closing(Poller()) as poller:
        yield poller


def test_a_descriptor_is_told_until_it_is_forgotten(poller: Poller) -> None:
    """A readable descriptor is returned again and again; a forgotten descriptor never is."""
    reader, writer = os.pipe()
    poller.register(reader, READ)
    assert poller.poll(0) == []
    os.write(writer, b"x")
    for _ in range(2):
        assert [descriptor for descriptor, _ in poller.poll(10)] == [reader]
    poller.forget(reader)
    assert poller.poll(0) == []
    poller.forget(reader)
    for descriptor in (reader, writer):
        os.close(descriptor)
