"""Runs a script for many channels of a cluster: one pipeline for each node.

It can be called from any thread, and blocks until all nodes have answered. No node is asked again
because of an error that may pass; the caller does that later.
"""

from collections.abc import Sequence

import redis

from flask_sse._redis import scripts
from flask_sse._redis.cluster.errors import LOST, Redirection
from flask_sse._redis.cluster.route import Route
from flask_sse._redis.cluster.router import Router
from flask_sse._redis.scripts import Call
from flask_sse._redis.url import Address


def run_all(calls: Sequence[Call], router: Router) -> list[object]:
    """Run a script for several channels.

    :return: the answer to each call, which may be an error.
    :raises redis.RedisError: if the cluster can't be looked at.
    """
    replies: list[object] = [None] * len(calls)
    nodes: dict[Address, list[int]] = {}
    for number, call in enumerate(calls):
        try:
            nodes.setdefault(router.address_of(call.channel), []).append(number)
        except redis.ResponseError as error:
            # No node has the slot.
            router.expire()
            replies[number] = error
    for address, numbers in nodes.items():
        answers = _run_on(router, address, [calls[number] for number in numbers])
        for number, answer in zip(numbers, answers, strict=True):
            replies[number] = answer
            if isinstance(answer, redis.RedisError):
                redirection = Redirection.of(answer, address)
                if redirection is not None:
                    replies[number] = _run_elsewhere(router, calls[number], redirection)
    return replies


def _run_on(router: Router, address: Address, calls: Sequence[Call]) -> Sequence[object]:
    try:
        return scripts.run_all(router.client_at(address), calls)
    except LOST as error:
        router.expire(address)
        return [error] * len(calls)


def _run_elsewhere(router: Router, call: Call, redirection: Redirection) -> object:
    """Run a script on the node that another one has named."""
    router.note(redirection)
    route = Route(router, call.channel)
    route.follow(redirection)
    try:
        return scripts.run(route.executor(), call)
    except redis.RedisError as error:
        route.note(error)
        return error
