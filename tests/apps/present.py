"""The site with streams of named clients, which tells the members; ``FLASK_TIMES`` sets theirs."""

from flask import request

from flask_sse import presence
from flask_sse._presence.room import Times
from tests.apps.named import app
from tests.support.presence import set_times

__all__ = ["app"]

if app.config.get("TIMES"):
    set_times(Times(*app.config["TIMES"]))


@app.get("/members")
def members() -> dict[str, int]:
    """Tell how many streams each member of a channel has."""
    found = presence.members(request.args["channel"])
    return {client: member.streams for client, member in found.items()}
