"""Calls that a type checker must refuse; checked by mypy and by pyright, never run.

Both are told to complain about an expected error that is not there.
"""

from redis import StrictRedis

from flask_sse import Message, ServerSentEventsBlueprint, history, presence, sse, streams


def publish_wrongly() -> None:
    """What `publish` does not take."""
    sse.publish()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sse.publish("Hello!", type=b"greeting")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sse.publish("Hello!", id=4.2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sse.publish("Hello!", retry="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sse.publish("Hello!", retry=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sse.publish("Hello!", channel=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sse.publish("Hello!", channel=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sse.publish("Hello!", event="greeting")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def make_a_message_wrongly() -> None:
    """What `Message` does not take, neither as a parameter nor as an attribute."""
    Message()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Message("Hello!", retry="3000")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    message = Message("Hello!")
    message.id = 4.2  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    message.channel = "users"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    message.to_dict()["event"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]


def listen_wrongly() -> None:
    """What `messages` does not take, and does not give."""
    sse.messages(channel=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = next(sse.messages())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
    history.position("users", sse)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    history.messages("users", blueprint=sse.redis)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    history.messages(["users", 1])  # type: ignore[list-item]  # pyright: ignore[reportCallIssue, reportArgumentType]
    history.messages(["users"], after=7)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    print(next(history.messages("users")).channel)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


def stream_wrongly(client: StrictRedis) -> None:
    """What the functions of `streams` do not take."""
    streams.stream()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    streams.stream(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    streams.stream([b"users"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    streams.stream(["users"], "alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    streams.stream(["users"], client=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    streams.stream(["users"], max_age="1h")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    streams.stream(["users"], blueprint=client)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    streams.position()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    streams.position([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    streams.disconnect("alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    streams.disconnect(client=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    streams.disconnect(user="alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    streams.end()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    streams.end(["users"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    streams.end("users", sse)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def ask_for_members_wrongly(client: StrictRedis) -> None:
    """What `members` does not take, and does not give."""
    presence.members()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    presence.members(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.members(b"lobby")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.members(["lobby"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.members("lobby", sse)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    presence.members("lobby", blueprint=client)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.members("lobby", client="alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    names: list[str] = presence.members("lobby")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(names)


def use_a_member_wrongly(member: presence.Member) -> None:
    """A member can't be changed, has a `datetime`, and does not know its own name."""
    presence.Member()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    presence.Member(1.5, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    member.streams = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(member.since > 1.5)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownArgumentType]
    print(member.client)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


def replace_the_client(client: StrictRedis) -> None:
    """The client can be overridden in a subclass, but not assigned."""
    sse.redis = client  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def forget_the_import_name() -> None:
    """A blueprint has both of its names."""
    ServerSentEventsBlueprint("sse")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
