"""Installing packages without a network, from wheels that `make` has downloaded."""

import sys
from pathlib import Path
from typing import Final

_WHEELS: Final = Path(sys.prefix) / "wheels"

OFFLINE: Final = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": str(_WHEELS),
    "UV_OFFLINE": "1",
    "UV_NO_INDEX": "1",
    "UV_FIND_LINKS": str(_WHEELS),
}
"""Environment variables with which pip and uv take what they install from there."""
