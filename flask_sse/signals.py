"""What happens to streams, messages and Redis: signals, as Flask's own.

They are signals of blinker's, which Flask has installed. The sender is the application, so a
receiver can be connected for one application or for all. Everything else is given by name. There
may be more in later versions: let receivers take ``**extra``.

Receivers of :data:`message_published` run where the message is published. All others run in a
thread of their own (a greenlet where gevent has patched), one after the other, in the order
of what has happened, each time in a new application context and without a request. A receiver
that is slow delays other receivers, and no stream. If 65,536 signals wait, further ones are
dropped, with a warning. An error of a receiver is logged.

As long as a signal has no receivers, it costs nothing. Streams that have begun before there was
a receiver for their client are not told of.

>>> from flask_sse import signals
>>> def log(sender, *, channel, message, **extra):
...     print(channel, message.data)
>>> with signals.message_published.connected_to(log, app), app.app_context():
...     _ = sse.publish("Hello!", channel="users")
users Hello!
"""

from typing import Final

from blinker import NamedSignal

from flask_sse import _signals

__all__ = [
    "client_connected",
    "client_gone",
    "client_refused",
    "message_published",
    "messages_delivered",
    "redis_lost",
    "redis_regained",
]

client_connected: Final[NamedSignal] = _signals.client_connected
"""A stream has begun: Redis has confirmed its subscription.

* ``channel`` - the name of the channel, a :class:`str`;
* ``client`` - what the application has put into ``g.sse_client`` while it handled the request,
  for example in a handler registered with ``sse.before_request``; else ``None``.
"""

client_gone: Final[NamedSignal] = _signals.client_gone
"""A stream has ended. For each that has begun this is sent once.

* ``channel`` and ``client`` - as before;
* ``reason`` - ``"client"`` if the client has closed its connection or can't be reached,
  ``"overflow"`` if it was disconnected because it read too slowly, ``"stop"`` if the server has
  been told to stop, ``"redis"`` if Redis does not allow the channel any more; of an overridden
  :meth:`~flask_sse.ServerSentEventsBlueprint.messages` also ``"end"`` and ``"error"``, if the
  generator has ended or raised;
* ``duration`` - for how many seconds it was open;
* ``events_sent`` - how many messages were given to its connection. A client that has gone without
  a word may not have received the last of them;
* ``bytes_sent`` - how many bytes of the body the operating system has taken, or the server. Under
  gunicorn the marks of HTTP's chunks are included.
"""

client_refused: Final[NamedSignal] = _signals.client_refused
"""A client got no stream, and was told to come back later.

* ``channel`` and ``client`` - as before;
* ``reason`` - ``"full"`` if there is no place (:confval:`SSE_MAX_CLIENTS`), ``"redis"`` if Redis
  has not confirmed the subscription, ``"stop"`` if the server has been told to stop, ``"error"``
  if something has failed, which the log explains.
"""

message_published: Final[NamedSignal] = _signals.message_published
"""Redis has accepted a message of this process. Receivers run in the thread, and in the contexts,
of the publisher, which waits for them; their errors are logged, and are not raised there.

* ``channel`` - the name of the channel, a :class:`str`;
* ``message`` - the :class:`~flask_sse.Message`, which a receiver must not change;
* ``processes`` - what :meth:`~flask_sse.ServerSentEventsBlueprint.publish` returns.
"""

messages_delivered: Final[NamedSignal] = _signals.messages_delivered
"""Messages have been written to the clients of a channel in this process, or left for the
threads that serve them. Messages that Redis has sent together are told of together.

* ``channel`` - the name of the channel, a :class:`str`;
* ``messages`` - how many there are;
* ``listeners`` - to how many they went: streams, and generators of
  :meth:`~flask_sse.ServerSentEventsBlueprint.messages`;
* ``lagging`` - how many clients of the channel have not taken everything yet;
* ``duration`` - how many seconds passed from their arrival to the last client;
* ``replayed`` - whether they come from the history, for one client that has missed them. Then
  ``duration`` is 0.
"""

redis_lost: Final[NamedSignal] = _signals.redis_lost
"""This process has no subscription to Redis any more, or can't get its first one.

* ``error`` - the exception that says why.
"""

redis_regained: Final[NamedSignal] = _signals.redis_regained
"""The subscription is there again.

* ``duration`` - how many seconds the outage has lasted;
* ``attempts`` - how often a connection has failed meanwhile.
"""
