"""The TypeScript of the examples, checked and bundled with the packages from npm."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.other_clients import CLIENTS, NODE

MODULES: Final = CLIENTS / "node_modules"

_CHECK: Final = (
    *("node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--jsx", "react-jsx"),
    *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
    *("--lib", "es2022,dom", "--skipLibCheck"),
)
_BUNDLE: Final = (
    *("node_modules/esbuild/bin/esbuild", "--bundle", "--jsx=automatic"),
    "--outfile=static/main.js",
)


def link_packages(folder: Path) -> None:
    """Let the sources in a folder import the packages from npm."""
    (folder / "node_modules").symlink_to(MODULES)


def check(folder: Path, source: str) -> None:
    """Check the types of a source, and of those that it imports."""
    _run(folder, *_CHECK, source)


def bundle(folder: Path, source: str) -> None:
    """Bundle a source into `static/main.js`."""
    _run(folder, *_BUNDLE, source)


def _run(folder: Path, *command: str) -> None:
    subprocess.run([NODE, *command], cwd=folder, check=True, capture_output=True, text=True)
