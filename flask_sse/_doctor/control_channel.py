"""Checks whether the user may use the channel over which the streams of a client are ended.

It waits for Redis, with a timeout.
"""

from contextlib import closing
from typing import Final

from redis.exceptions import NoPermissionError

from flask_sse._doctor.finding import Finding, ok, warn
from flask_sse._doctor.redis_node import PubSub, ServerCommands, wait_for
from flask_sse._event.channel_name import CONTROL, to_text
from flask_sse._redis.revoking import RULE

_NAME: Final = to_text(CONTROL)


def check_control(client: ServerCommands, patience: float, *, sharded: bool = False) -> Finding:
    """Return the finding about the control channel.

    :param client: A client for the Redis, or for the node of a cluster that has the channel.
    :param patience: Seconds to wait for the answer.
    :param sharded: Whether it is a node of a cluster.
    """
    with closing(client.pubsub()) as pubsub:
        try:
            _subscribe(pubsub, patience, sharded=sharded)
        except NoPermissionError as error:
            return warn(
                "control channel",
                f"streams.stream() refuses clients with a name, and streams.disconnect() fails: "
                f"{error}",
                f"run {RULE}, or leave it if the app uses neither client= nor disconnect()",
            )
    return ok("control channel", f"streams of clients can be ended over {_NAME}")


def _subscribe(pubsub: PubSub, patience: float, *, sharded: bool) -> None:
    if sharded:
        pubsub.ssubscribe(CONTROL)
    else:
        pubsub.subscribe(CONTROL)
    wait_for(pubsub, lambda message: message["type"] in {"subscribe", "ssubscribe"}, patience)
