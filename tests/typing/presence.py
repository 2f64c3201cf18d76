"""How a typed application asks who is there; checked by mypy and by pyright, never run."""

from datetime import datetime
from typing import assert_type

from flask import Flask

from flask_sse import ServerSentEventsBlueprint, presence
from flask_sse.presence import Member

app = Flask(__name__)
app.config["SSE_PRESENCE"] = ["room.*", "lobby"]


@app.get("/rooms/<room>/members")
def show_members(room: str) -> dict[str, str]:
    """A view gets a mapping, whose order is that of the joins."""
    members = presence.members(f"room.{room}")
    assert_type(members, dict[str, Member])
    return {client: member.since.isoformat() for client, member in members.items()}


def ask_about_one_client(blueprint: ServerSentEventsBlueprint) -> bool:
    """Another blueprint is named by keyword, and a client may be missing."""
    members = presence.members(channel="lobby", blueprint=blueprint)
    assert_type(members.get("alice"), Member | None)
    return "alice" in members


def look_at_a_member(member: Member) -> datetime:
    """A member is a named tuple, which a test of the application can make itself."""
    assert_type(member.since, datetime)
    assert_type(member.streams, int)
    since, streams = member
    assert_type(since, datetime)
    assert_type(streams, int)
    assert_type(member == Member(since, streams=2), bool)
    return since
