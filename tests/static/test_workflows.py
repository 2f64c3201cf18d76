"""The files in `.github`: their form, and what the workflow of a release must not do."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

_GITHUB: Final = Path(__file__).parents[2] / ".github"
_FORMS: Final = _GITHUB / "ISSUE_TEMPLATE"
_WORKFLOWS: Final = _GITHUB / "workflows"


def _load(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(
    ("schema", "folder", "names"),
    [
        ("vendor.github-workflows", _WORKFLOWS, ["release.yml", "test.yml"]),
        ("custom.github-workflows-require-timeout", _WORKFLOWS, ["release.yml", "test.yml"]),
        ("vendor.github-issue-forms", _FORMS, ["bug.yml", "change.yml"]),
        ("vendor.github-issue-config", _FORMS, ["config.yml"]),
        ("vendor.dependabot", _GITHUB, ["dependabot.yml"]),
        ("vendor.readthedocs", _GITHUB.parent, [".readthedocs.yaml"]),
    ],
)
def test_form(schema: str, folder: Path, names: list[str]) -> None:
    """Each file has the form that its reader expects."""
    paths = [str(folder / name) for name in names]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_release_needs_no_token() -> None:
    """Only the job that uploads may prove to PyPI where it runs, and it runs nothing else."""
    workflow = _load(_WORKFLOWS / "release.yml")
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in check
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["needs"] == "check"
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert publish["steps"][1]["with"] == {"attestations": True}
    text = (_WORKFLOWS / "release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text


@pytest.mark.parametrize("name", ["release.yml", "test.yml"])
def test_actions_are_pinned(name: str) -> None:
    """No action can change without a commit here, and a comment says which version it is."""
    text = (_WORKFLOWS / name).read_text(encoding="utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


def test_a_release_is_checked_first() -> None:
    """What is uploaded is what `make release-check` has built, and checked with the tag."""
    steps = _load(_WORKFLOWS / "release.yml")["jobs"]["check"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands == ["make test", "make release-check"]
    (check,) = (step for step in steps if step.get("run") == "make release-check")
    assert check["env"] == {"TAG": "${{ github.ref_name }}"}
    assert steps[-1]["with"]["path"] == "dist/"


def test_versions_of_python() -> None:
    """The tests run with each version that is declared, and with one that may fail."""
    job = _load(_WORKFLOWS / "test.yml")["jobs"]["test"]
    project = (_GITHUB.parent / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert job["strategy"]["matrix"]["python"] == [*declared, f"{declared[-1]}t"]
    assert job["continue-on-error"] == "${{ endsWith(matrix.python, 't') }}"


def test_what_a_bug_report_asks_for() -> None:
    """It asks for what the page *Troubleshooting* uses."""
    fields = [field["attributes"] for field in _load(_FORMS / "bug.yml")["body"]]
    labels = " ".join(str(field.get("label")) for field in fields)
    for part in ("flask sse doctor", "curl -N", "PUBSUB NUMSUB", "worker", "Versions", "Log"):
        assert part in labels
