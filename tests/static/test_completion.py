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
_AFTER_DOT: Final = types.Position(line=3, character=len("sse."))
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
    labels = [parameter.label for parameter in shown.signature.parameters or ()]
    assert [str(label).replace(" ", "") for label in labels] == [
        "data:Any",
        "type:str|None=None",
        "id:str|int|None=None",
        "retry:int|None=None",
        'channel:str="sse"',
    ]
    assert shown.signature.label.endswith("-> int")
    documentation = shown.signature.documentation
    assert isinstance(documentation, types.MarkupContent)
    assert documentation.value.startswith("Publish data as a server-sent event.")
    assert ":param channel:" in documentation.value
    assert shown.completions >= {"publish", "messages", "stream", "redis"}


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
    document = types.TextDocumentIdentifier((folder / "app.py").as_uri())
    # jedi's server, told to exit, does not do so before it has sent what it still has to say.
    options = {"diagnostics": {"enable": False}}
    parameters = types.InitializeParams(
        _CAPABILITIES, root_uri=root.uri, initialization_options=options, workspace_folders=[root]
    )
    await _soon(client.initialize_async(parameters))
    client.initialized(types.InitializedParams())
    client.text_document_did_open(
        types.DidOpenTextDocumentParams(
            types.TextDocumentItem(document.uri, "python", version=1, text=_TEXT)
        )
    )
    help_ = await _soon(
        client.text_document_signature_help_async(types.SignatureHelpParams(document, _IN_PUBLISH))
    )
    assert help_ is not None
    found = await _soon(
        client.text_document_completion_async(types.CompletionParams(document, _AFTER_DOT))
    )
    items = found.items if isinstance(found, types.CompletionList) else found or ()
    return Shown(help_.signatures[0], {item.label for item in items})


def _pass_over(_: object) -> None:
    """Take a notification that no editor needs here."""


async def _soon(answer: Awaitable[T]) -> T:
    return await asyncio.wait_for(answer, _WITHIN)
