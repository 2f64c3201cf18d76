"""How a program in Python tells what its client gives it."""

import json


def report(type: str, data: str, id: str) -> None:
    """Write an event for the test."""
    print(json.dumps([type, data, id]), flush=True)
