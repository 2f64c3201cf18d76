"""Signals about streams, messages and Redis, like Flask's own signals.

They are blinker signals; Flask installs blinker. The sender is the application, so a receiver
can be connected for one application or for all. All other values are keyword arguments. Later
versions may add more, so receivers should accept ``**extra``.

Receivers of :data:`message_published` run where the message is published. All others run in a
separate thread (a greenlet if gevent has patched), one after the other, in the order of the
events, each time in a new application context and without a request. A slow receiver delays
other receivers, but not streams. If 65,536 signals are waiting, further signals are dropped,
with a warning. Errors of receivers are logged.

A signal without receivers costs nothing. No signals are sent for streams that began before a
receiver was connected.

>>> from flask_sse import signals
>>> def log(sender, *, channel, message, **extra):
...     print(channel, message.data)
>>> with signals.message_published.connected_to(log, app), app.app_context():
...     _ = sse.publish("Hello!", channel="users")
users Hello!
"""

from typing import Final

from blinker import NamedSignal, Namespace

__all__ = [
    "client_connected",
    "client_gone",
    "client_refused",
    "message_published",
    "messages_delivered",
    "redis_lost",
    "redis_regained",
]

_namespace: Final = Namespace()

client_connected: Final[NamedSignal] = _namespace.signal("client-connected")
"""A stream has begun: Redis has confirmed its subscription.

* ``channel`` - the name of the channel, a :class:`str`; if there are several, the first one;
* ``channels`` - the names of all channels, a :class:`tuple`;
* ``client`` - the ``client`` of :func:`flask_sse.streams.stream`. For other streams, the value of
  ``g.sse_client`` that the application set while it handled the request, for example in a handler
  registered with ``sse.before_request``; otherwise ``None``.

:meta hide-value:
"""

client_gone: Final[NamedSignal] = _namespace.signal("client-gone")
"""A stream has ended. It is sent once for each stream that has begun.

* ``channel``, ``channels`` and ``client`` - as before;
* ``reason`` - ``"client"`` if the client has closed its connection or can't be reached,
  ``"overflow"`` if it was disconnected because it read too slowly, ``"stop"`` if the server has
  been told to stop, ``"age"`` if the stream has reached its age limit (:confval:`SSE_MAX_AGE`),
  ``"disconnect"`` if the application has disconnected the client
  (:func:`flask_sse.streams.disconnect`), ``"redis"`` if Redis no longer allows the channel, or if
  the client must be checked again because a call of that function may have been missed, ``"end"``
  if its channels have ended (:func:`flask_sse.streams.end`); for an overridden
  :meth:`~flask_sse.ServerSentEventsBlueprint.messages` also ``"end"`` or ``"error"``, if the
  generator has ended or raised an exception;
* ``duration`` - how many seconds it was open;
* ``events_sent`` - how many messages were written to its connection. A client that has vanished
  without closing may not have received the last of them;
* ``bytes_sent`` - how many bytes of the body the operating system, or the server, has accepted.
  Under gunicorn, this includes the framing of HTTP chunks.

:meta hide-value:
"""

client_refused: Final[NamedSignal] = _namespace.signal("client-refused")
"""A client got no stream, and was told to reconnect later.

* ``channel``, ``channels`` and ``client`` - as before;
* ``reason`` - ``"full"`` if the limit of streams is reached (:confval:`SSE_MAX_CLIENTS`),
  ``"redis"`` if Redis has not confirmed the subscription, ``"stop"`` if the server has been told
  to stop, ``"disconnect"`` if the application has disconnected the client in the meantime,
  ``"error"`` if something has failed; the log has the reason.

:meta hide-value:
"""

message_published: Final[NamedSignal] = _namespace.signal("message-published")
"""Redis has accepted a message from this process. Receivers run in the publisher's thread and
contexts, and the publisher waits for them; their errors are logged and not raised there.

* ``channel`` - the name of the channel, a :class:`str`;
* ``message`` - the :class:`~flask_sse.Message`, which a receiver must not change;
* ``processes`` - what :meth:`~flask_sse.ServerSentEventsBlueprint.publish` returns.

:meta hide-value:
"""

messages_delivered: Final[NamedSignal] = _namespace.signal("messages-delivered")
"""Messages have been written to the clients of a channel in this process, or passed to the
threads that serve them. Messages that Redis has sent together are reported together.

* ``channel`` - the name of the channel, a :class:`str`;
* ``messages`` - how many there are;
* ``listeners`` - how many listeners they went to: streams, and generators of
  :meth:`~flask_sse.ServerSentEventsBlueprint.messages`;
* ``lagging`` - how many clients of the channel have not received everything yet;
* ``duration`` - how many seconds passed from their arrival to the last client;
* ``replayed`` - whether they come from the history, for one client that missed them. In this
  case, ``duration`` is 0.

:meta hide-value:
"""

redis_lost: Final[NamedSignal] = _namespace.signal("redis-lost")
"""This process has lost its subscription to Redis, or can't get its first one.

In a Redis Cluster, it is sent for each node whose connection is lost, and once more if no node
says which of them has which channels.

* ``error`` - the exception with the reason.

:meta hide-value:
"""

redis_regained: Final[NamedSignal] = _namespace.signal("redis-regained")
"""The subscription has been restored.

In a Redis Cluster, it is sent for each outage of a node, when that node is back or when other
nodes have taken over its channels.

* ``duration`` - how many seconds the outage lasted;
* ``attempts`` - how many connections failed during the outage.

:meta hide-value:
"""
