"""NaN and Infinity, which Python writes as JSON and browsers can't read."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider

from flask_sse import sse
from tests.support.listening import listening
from tests.support.redis_server import RedisServer

MakeApp = Callable[..., Flask]

_NAN = math.nan


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (_NAN, "NaN at data, which"),
        ([0, math.inf], "Infinity at data[1], which"),
        ({"a": "NaN", "b": [{"c": -math.inf}, _NAN]}, "-Infinity at data['b'][0]['c'], which"),
        ([[]] * 500 + [{"é": _NAN}], "NaN at data[500]['é'], which"),
    ],
)
@pytest.mark.parametrize("history", [0, 10])
def test_warning(
    make_app: MakeApp,
    shared_redis: RedisServer,
    channel: str,
    data: object,
    where: str,
    history: int,
) -> None:
    """The publisher is warned where it is, and the event is sent as it was in 1.0."""
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=history)
    with app.app_context(), listening(shared_redis.admin, channel) as listener:
        with pytest.warns(RuntimeWarning) as caught:
            assert sse.publish(data, type="t", channel=channel) == 1
        assert app.json.dumps(listener.payloads(1)[0]["data"]) == app.json.dumps(data)
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f"an event for channel {channel!r} contains {where} is not JSON")
    assert "Publish None" in text


def test_one_warning_for_each_application(make_app: MakeApp) -> None:
    """Other events of an application cause no more warnings, and other applications do."""
    for _ in range(2):
        app = make_app(REDIS_URL="memory://")
        with app.app_context(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(3):
                sse.publish([_NAN] * number)
        assert len(caught) == 1


def test_no_event_if_the_warning_is_an_error(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """A project that makes warnings errors gets it before anything is sent."""
    app = make_app(REDIS_URL=shared_redis.url)
    with app.app_context(), listening(shared_redis.admin, "sse") as listener:
        with pytest.raises(RuntimeWarning):
            sse.publish(_NAN)
        sse.publish("next")
        assert listener.payloads(1) == [{"data": "next"}]


class _Strict(DefaultJSONProvider):
    """Writes null."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        readable = json.loads(super().dumps(obj, **kwargs), parse_constant=lambda _: None)
        return super().dumps(readable, **kwargs)


class _Other(DefaultJSONProvider):
    """Writes something that is not JSON."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps(obj, **kwargs).replace("NaN", "Number.NaN")


@pytest.mark.parametrize("provider", [_Strict, _Other])
def test_other_providers(make_app: MakeApp, provider: type[DefaultJSONProvider]) -> None:
    """What another JSON provider writes is its own affair."""
    app = make_app(REDIS_URL="memory://")
    app.json = provider(app)
    with app.app_context():
        sse.publish({"a": _NAN})


@pytest.mark.parametrize("data", ["NaN", {"Infinity": "-Infinity"}, '{"a": NaN}', 1e308])
def test_no_warning(make_app: MakeApp, data: object) -> None:
    """The same letters in text are not a number."""
    with make_app(REDIS_URL="memory://").app_context():
        sse.publish(data)
