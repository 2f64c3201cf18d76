"""Finds out that the application itself reads the body of a stream, before it is sent.

It would read for ever, and the thread would serve nobody else.
"""

import sys
from types import FrameType
from typing import Final, NoReturn

_MESSAGE: Final = (
    "the body of an event stream was read before it was sent, but it never ends; probably by an "
    "after_request function or an extension that uses get_data(), make_sequence() or freeze(): "
    "make it skip responses whose mimetype is text/event-stream"
)


def check_reader(environ_id: int) -> None:
    """Check that the response has left Flask; call this before the first data is read.

    :param environ_id: The identity of the request's WSGI environ.
    :raises RuntimeError: if Flask is still handling that request.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        # The view of another request may read a stream, for example with Flask's test client.
        if (
            frame.f_code.co_name == "wsgi_app"
            and frame.f_globals.get("__name__") == "flask.app"
            and id(frame.f_locals.get("environ")) == environ_id
        ):
            raise RuntimeError(_MESSAGE)
        frame = frame.f_back


def refuse_pickling() -> NoReturn:
    """Raise the error for a stream that is to be stored.

    :raises TypeError: always.
    """
    raise TypeError(
        "an event stream can't be pickled, since each client has its own; if a cache has tried to "
        "store the response, exclude the view of the stream from caching"
    )
