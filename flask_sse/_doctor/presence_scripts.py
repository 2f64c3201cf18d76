"""The check of what presence needs of Redis.

It waits for Redis.
"""

from typing import Final

from flask_sse._redis import lease_commands, scripts
from flask_sse._redis.lease_commands import Change, Lease
from flask_sse._redis.log_commands import Executor

_PROCESS: Final = "doctor"
_CLIENT: Final = b"doctor"
_LEASES: Final = (
    Lease(5_000, "0", "1", (Change(_CLIENT, 1, is_news=True),)),
    Lease(0, "1", "2", (Change(_CLIENT, 0, is_news=False),)),
)


def run_scripts(client: Executor, channel: bytes) -> None:
    """Let a client join a channel that nobody else uses, and leave it.

    :raises redis.RedisError: if Redis does not allow that.
    """
    scripts.run(client, lease_commands.lease(channel, _PROCESS, _LEASES[0]))
    scripts.run(client, lease_commands.members(channel))
    scripts.run(client, lease_commands.lease(channel, _PROCESS, _LEASES[1]))
