"""The signals themselves, which :mod:`flask_sse.signals` documents.

Pure: a signal knows its receivers, and senders check for receivers first.
"""

from typing import Final

from blinker import Namespace

_namespace: Final = Namespace()

client_connected: Final = _namespace.signal("client-connected")
client_gone: Final = _namespace.signal("client-gone")
client_refused: Final = _namespace.signal("client-refused")
message_published: Final = _namespace.signal("message-published")
messages_delivered: Final = _namespace.signal("messages-delivered")
redis_lost: Final = _namespace.signal("redis-lost")
redis_regained: Final = _namespace.signal("redis-regained")
