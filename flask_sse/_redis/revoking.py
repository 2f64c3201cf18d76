"""Tells all processes which streams must end.

It can be called from any thread, and blocks until Redis has answered.
"""

from typing import Final

from redis.exceptions import NoPermissionError

from flask_sse._event.channel_name import CONTROL, to_text
from flask_sse._event.revocation import Revocation
from flask_sse._redis.publisher import Publisher

RULE: Final = f"ACL SETUSER <user> &{to_text(CONTROL)}"
"""The command for Redis that allows the control channel."""


def revoke(publisher: Publisher, revocation: Revocation) -> int:
    """Publish a revocation; return how many processes have got it.

    :raises NoPermissionError: if Redis does not allow this; the message names the rule to add.
    :raises redis.RedisError: if Redis can't be reached or does not answer.
    """
    try:
        return publisher.publish(CONTROL, revocation.to_payload())
    except NoPermissionError as error:
        raise NoPermissionError(
            f"disconnect() needs the channel {to_text(CONTROL)}; run {RULE}: {error}"
        ) from error
