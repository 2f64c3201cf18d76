"""The documented API, held against a table: names, parameters, kinds, defaults, types."""

import importlib
import inspect
from collections.abc import Callable, Generator
from inspect import Parameter
from typing import Any, Final, NamedTuple, get_type_hints

import flask
import pytest
import redis

import flask_sse
from flask_sse import Message, ServerSentEventsBlueprint, sse


class Documented(NamedTuple):
    """A parameter as it is documented; all of them may be given by position and by name."""

    name: str
    annotation: object
    default: object = Parameter.empty


NAMES: Final = {"Message", "ServerSentEventsBlueprint", "sse"}
SUBMODULES: Final = {
    "history": {"ChannelMessage", "messages", "position"},
    "presence": {"Member", "members"},
    "signals": {
        "client_connected",
        "client_gone",
        "client_refused",
        "message_published",
        "messages_delivered",
        "redis_lost",
        "redis_regained",
    },
    "streams": {"disconnect", "end", "position", "stream"},
    "testing": {
        "Harness",
        "Published",
        "ReceivedMessage",
        "Stream",
        "harness",
        "in_memory",
        "open_stream",
        "record",
    },
}
MEMBERS: Final = {
    Message: {"to_dict"},
    # Flask calls `register`, which every blueprint has.
    ServerSentEventsBlueprint: {"messages", "publish", "redis", "register", "stream"},
}
SELF: Final = Documented("self", Parameter.empty)
EVENT: Final = (
    Documented("data", Any),
    Documented("type", str | None, None),
    Documented("id", str | int | None, None),
    Documented("retry", int | None, None),
)
CHANNEL: Final = Documented("channel", str, "sse")
CALLABLES: Final[dict[Callable[..., object], tuple[tuple[Documented, ...], object]]] = {
    Message.__init__: ((SELF, *EVENT), None),
    Message.__str__: ((SELF,), str),
    Message.to_dict: ((SELF,), dict),
    ServerSentEventsBlueprint.messages: ((SELF, CHANNEL), Generator[Message, None, None]),
    ServerSentEventsBlueprint.publish: ((SELF, *EVENT, CHANNEL), int),
    ServerSentEventsBlueprint.stream: ((SELF,), flask.Response),
}
CONSTRUCTOR: Final = (
    "name",
    "import_name",
    "static_folder",
    "static_url_path",
    "template_folder",
    "url_prefix",
    "subdomain",
    "url_defaults",
    "root_path",
    "cli_group",
)
"""What the documentation of 1.0 gives as the blueprint's parameters, in its order."""


def test_exported_names() -> None:
    """The package exports the documented names, and has few public modules beside them."""
    # pytest adds names of its own, which are no identifiers, where it rewrites what asserts.
    names = filter(str.isidentifier, vars(flask_sse))
    public = {name for name in names if not name.startswith("_")}
    assert set(flask_sse.__all__) == NAMES
    # A submodule is an attribute once somebody has imported it.
    assert public - SUBMODULES.keys() == NAMES


@pytest.mark.parametrize("name", SUBMODULES)
def test_names_of_a_submodule(name: str) -> None:
    """A public module exports what is documented."""
    module = importlib.import_module(f"flask_sse.{name}")
    assert set(module.__all__) == SUBMODULES[name]


@pytest.mark.parametrize("documented", MEMBERS, ids=lambda documented: documented.__name__)
def test_public_members(documented: type) -> None:
    """A class defines the documented members and no other public ones."""
    assert {name for name in vars(documented) if not name.startswith("_")} == MEMBERS[documented]


@pytest.mark.parametrize("documented", MEMBERS, ids=lambda documented: documented.__name__)
def test_docstrings(documented: type) -> None:
    """Every documented name has a docstring of its own, from which the site is made."""
    members = [vars(documented)[name] for name in MEMBERS[documented]]
    assert [member for member in (documented, *members) if not member.__doc__] == []
    assert documented.__doc__ not in {base.__doc__ for base in documented.__bases__}


@pytest.mark.parametrize("documented", [*MEMBERS, sse], ids=repr)
def test_where_it_says_it_lives(documented: object) -> None:
    """Public objects name the package, not a module that may move."""
    assert documented.__module__ == "flask_sse"


@pytest.mark.parametrize("function", CALLABLES, ids=lambda function: function.__qualname__)
def test_signature(function: Callable[..., object]) -> None:
    """Parameters have the documented names, order, kinds and defaults, and their types."""
    documented, returned = CALLABLES[function]
    signature = inspect.signature(function, eval_str=True)
    assert list(signature.parameters.values()) == [
        Parameter(
            parameter.name,
            Parameter.POSITIONAL_OR_KEYWORD,
            annotation=parameter.annotation,
            default=parameter.default,
        )
        for parameter in documented
    ]
    # The stored form is a typed dictionary, which at run time is a dict.
    actual = signature.return_annotation
    assert (dict if getattr(actual, "__orig_bases__", None) else actual) == returned


def test_message_attributes() -> None:
    """A message's attributes have the types of its parameters."""
    assert get_type_hints(Message) == {parameter.name: parameter.annotation for parameter in EVENT}


def test_blueprint_constructor() -> None:
    """The blueprint is made as any blueprint of the installed Flask."""
    parameters = inspect.signature(ServerSentEventsBlueprint).parameters
    assert tuple(parameters)[: len(CONSTRUCTOR)] == CONSTRUCTOR
    assert parameters == inspect.signature(flask.Blueprint).parameters


def test_redis_property() -> None:
    """The client is a property, so that a subclass can override it."""
    prop = inspect.getattr_static(ServerSentEventsBlueprint, "redis")
    assert isinstance(prop, property)
    assert prop.fget is not None
    assert get_type_hints(prop.fget) == {"return": redis.StrictRedis}


def test_instance() -> None:
    """The ready-made instance is a plain blueprint of the documented name."""
    assert type(sse) is ServerSentEventsBlueprint
    assert repr(sse) == "<ServerSentEventsBlueprint 'sse'>"
