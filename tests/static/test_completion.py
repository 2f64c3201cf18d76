"""What an editor shows, asked of real language servers in the way that editors ask."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, cast

import pytest
from lsprotocol import types
from pygls.lsp.client import LanguageClient

from tests.support import coroutines

_BIN: Final = Path(sys.executable).parent
_WITHIN: Final = 60.0
_TEXT: Final = "from flask_sse import sse\n\nsse.publish(\nsse.\n"
_IN_PUBLISH: Final = types.Position(line=2, character=len("sse.publish("))
_OTHER_TEXT: Final = "from flask_sse import streams\n\nstreams.stream(\n"
_IN_STREAM: Final = types.Position(line=2, character=len("streams.stream("))
_AFTER_DOT: Final = types.Position(line=3, character=len("sse."))
_DOCUMENTS: Final = {"app.py": _TEXT, "views.py": _OTHER_TEXT}
_CAPABILITIES: Final = types.ClientCapabilities(
    text_document=types.TextDocumentClientCapabilities(
        signature_help=types.SignatureHelpClientCapabilities(
            signature_information=types.ClientSignatureInformationOptions(
                documentation_format=[types.MarkupKind.PlainText]
            )
        )
    )
)

_Start = Callable[..., Awaitable[None]]
T = TypeVar("T")


class Shown(NamedTuple):
    """What an editor gets."""

    signature: types.SignatureInformation
    """That of `publish`."""
    of_stream: types.SignatureInformation
    completions: set[str]


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [("jedi-language-server",), ("basedpyright-langserver", "--stdio")],
    ids=["jedi", "pyright"],
)
def test_editor(command: Sequence[str], tmp_path: Path) -> None:
    """Within ``sse.publish(`` each parameter is shown, and after ``sse.`` each member."""
    shown = coroutines.run(_ask(command, tmp_path))
    assert _labels(shown.signature) == [
        "data:Any",
        "type:str|None=None",
        "id:str|int|None=None",
        "retry:int|None=None",
        'channel:str="sse"',
    ]
    assert _labels(shown.of_stream) == [
        "channels:Iterable[str]",
        "client:str|None=None",
        "max_age:float|None=None",
        "blueprint:ServerSentEventsBlueprint=sse",
    ]
    assert shown.signature.label.endswith("-> int")
    documentation = shown.signature.documentation
    assert isinstance(documentation, types.MarkupContent)
    assert documentation.value.startswith("Publish data as a server-sent event.")
    assert ":param channel:" in documentation.value
    assert shown.completions >= {"publish", "messages", "stream", "redis"}


def _labels(signature: types.SignatureInformation) -> list[str]:
    """Return the parameters, without the mark before those that are given by name only."""
    labels = [str(parameter.label) for parameter in signature.parameters or ()]
    return [label.replace(" ", "") for label in labels if label != "*"]


async def _ask(command: Sequence[str], folder: Path) -> Shown:
    name, *options = command
    client = LanguageClient("flask-sse-tests", "1")
    for notification in (types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS, types.WINDOW_LOG_MESSAGE):
        client.feature(notification)(_pass_over)
    # Pyright takes the packages of the first Python on the path.
    path = f"{_BIN}{os.pathsep}{os.environ['PATH']}"
    # pygls leaves the types of these two out.
    start = cast("_Start", client.start_io)
    stop = cast("Callable[[], Awaitable[None]]", client.stop)
    await start(str(_BIN / name), *options, env={**os.environ, "PATH": path})
    try:
        return await _converse(client, folder)
    finally:
        await _soon(client.shutdown_async(None))
        client.exit(None)
        await _soon(stop())


async def _converse(client: LanguageClient, folder: Path) -> Shown:
    root = types.WorkspaceFolder(folder.as_uri(), "project")
    # jedi's server, told to exit, does not do so before it has sent what it still has to say.
    options = {"diagnostics": {"enable": False}}
    parameters = types.InitializeParams(
        _CAPABILITIES, root_uri=root.uri, initialization_options=options, workspace_folders=[root]
    )
    await _soon(client.initialize_async(parameters))
    client.initialized(types.InitializedParams())
    document, other = (_open(client, folder / name, text) for name, text in _DOCUMENTS.items())
    signature = await _find_signature(client, document, _IN_PUBLISH)
    of_stream = await _find_signature(client, other, _IN_STREAM)
    found = await _soon(
        client.text_document_completion_async(types.CompletionParams(document, _AFTER_DOT))
    )
    items = found.items if isinstance(found, types.CompletionList) else found or ()
    return Shown(signature, of_stream, {item.label for item in items})


def _open(client: LanguageClient, path: Path, text: str) -> types.TextDocumentIdentifier:
    uri = path.as_uri()
    item = types.TextDocumentItem(uri, "python", version=1, text=text)
    client.text_document_did_open(types.DidOpenTextDocumentParams(item))
    return types.TextDocumentIdentifier(uri)


async def _find_signature(
    client: LanguageClient, document: types.TextDocumentIdentifier, position: types.Position
) -> types.SignatureInformation:
    asked = types.SignatureHelpParams(document, position)
    answer = await _soon(client.text_document_signature_help_async(asked))
    assert answer is not None
    return answer.signatures[0]


def _pass_over(_: object) -> None:
    """Take a notification that no editor needs here."""


async def _soon(answer: Awaitable[T]) -> T:
    return await asyncio.wait_for(answer, _WITHIN)
