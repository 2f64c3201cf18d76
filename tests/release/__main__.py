"""``python -m tests.release``: check the tree, and build what can be uploaded.

The status is 1 if anything must be mended first. With ``--prepare 2.0.0``, nothing is checked:
the files say from then on that this version is released today.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.release import links, packages, readme, site, version
from tests.release.problem import Problem

_TREE: Final = Path(__file__).parents[2]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.release")
    parser.add_argument("--dist", type=Path, help="an empty folder for what is built")
    parser.add_argument("--tag", help="the tag, whose name must be that of the version")
    parser.add_argument("--prepare", metavar="VERSION", help="make the tree this release")
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        try:
            version.prepare(_TREE, arguments.prepare)
        except ValueError as error:
            parser.error(str(error))
        return 0
    with tempfile.TemporaryDirectory(prefix="flask-sse-release-") as folder:
        dist = arguments.dist or Path(folder) / "dist"
        return 1 if _check(_TREE, dist.absolute(), Path(folder), arguments.tag) else 0


def _check(tree: Path, dist: Path, folder: Path, tag: str | None) -> int:
    """Run all checks; return how many have failed."""
    pages = folder / "site"
    failed = 0

    def report(name: str, found: Iterable[Problem]) -> bool:
        nonlocal failed
        start = time.monotonic()
        problems = list(found)
        failed += bool(problems)
        outcome = "failed" if problems else "ok"
        print(f"{outcome:6}  {name} ({time.monotonic() - start:.1f} s)", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
        return not problems

    report("version", version.check_version(tree, tag))
    report("changelog", version.check_changelog(tree))
    # Before, the words say that there is no release, as they must.
    is_final = version.is_final(version.read_version(tree))
    if is_final:
        report("words of the README", version.check_readme_words(tree))
    report("README on PyPI", readme.check_rendering(tree))
    if report("build", packages.build(tree, dist)):
        built = sorted(path for path in dist.iterdir() if path.suffix in {".gz", ".whl"})
        report("metadata", readme.check_metadata(built))
        for path in built:
            report(path.name, packages.try_out(tree, path, folder / path.suffix[1:]))
    if report("documentation", site.build(tree, pages)):
        if is_final:
            report("words of the documentation", site.check_words(pages))
        report("links of the documentation", links.check_site(tree, pages))
        report("links of other files", links.check_files(tree, pages))
    print(f"{failed} failed" if failed else f"{version.read_version(tree)} can be released.")
    return failed


if __name__ == "__main__":
    sys.exit(main())
