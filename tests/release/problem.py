"""What is wrong with a release."""

from typing import NamedTuple


class Problem(NamedTuple):
    """One reason why a tree can't be released."""

    what: str
    remedy: str

    def __str__(self) -> str:
        """Both, as lines for a terminal."""
        return f"{self.what}\n    {self.remedy}"
