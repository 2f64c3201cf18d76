"""The shorter way from a stored event to its frame gives what the longer one gives."""

import json
from collections.abc import Callable

from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_sse._event.message import encode, from_payload, to_frame

PROVIDER = Flask("tests").json
TEXT = st.text() | st.sampled_from(["", " a", "a\nb", "a\r\nb", "\r", "é\u2028", "\ud800"])
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | TEXT
STORED = st.fixed_dictionaries(
    {"data": st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3), max_leaves=4)},
    optional={"type": VALUES, "id": VALUES, "retry": VALUES, "other": VALUES},
)


@given(STORED | VALUES)
def test_frames(stored: object) -> None:
    """Each kind of stored event has the same frame, or the same error."""
    payload = json.dumps(stored).encode()
    assert _outcome(lambda: to_frame(payload, PROVIDER)) == _outcome(
        lambda: encode(from_payload(payload, PROVIDER), PROVIDER)
    )


def _outcome(make: Callable[[], bytes]) -> object:
    try:
        return make()
    except (TypeError, ValueError) as error:
        return type(error), str(error)
