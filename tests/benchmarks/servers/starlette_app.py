"""The application of the system ``sse-starlette``: one Redis subscription, a queue for each client.

Made as cheap as the library allows: each event is decoded and encoded once, and the queues carry
the finished bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

queues: set[asyncio.Queue[bytes]] = set()


async def fan_out(redis: Redis, subscribed: asyncio.Event) -> None:
    """Hand each event to every client's queue."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe("sse")
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                subscribed.set()
            else:
                frame = ServerSentEvent(json.loads(message["data"])["data"]).encode()
                for queue in queues:
                    queue.put_nowait(frame)


async def frames(queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes through ``queue`` as long as the client is there."""
    try:
        while True:
            yield await queue.get()
    finally:
        queues.discard(queue)


async def stream(request: Request) -> EventSourceResponse:
    """Answer one client. It is registered before the headers go out."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues.add(queue)
    return EventSourceResponse(frames(queue))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Subscribe before the first request is accepted."""
    subscribed = asyncio.Event()
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        hub = asyncio.create_task(fan_out(redis, subscribed))
        await subscribed.wait()
        yield
        hub.cancel()


app = Starlette(routes=[Route("/stream", stream)], lifespan=lifespan)
