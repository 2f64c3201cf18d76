"""The findings of `flask sse doctor`."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from flask import Flask


class Finding(NamedTuple):
    """One line of its output."""

    level: str
    check: str
    found: str
    remedy: str


def run_doctor(app: Flask, *arguments: str, group: str = "sse") -> list[Finding]:
    """Run the doctor, whose exit status says whether something has failed."""
    done = app.test_cli_runner().invoke(args=[group, "doctor", "--json", *arguments])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line.keys() == {*Finding._fields} for line in lines)
    findings = [Finding(**line) for line in lines]
    has_failed = any(finding.level == "fail" for finding in findings)
    assert done.exit_code == int(has_failed), done.output
    assert all(bool(finding.remedy) == (finding.level != "ok") for finding in findings)
    return findings


def bad(findings: Iterable[Finding]) -> list[Finding]:
    """Return what is wrong, apart from delays: the machine may be slow."""
    return [
        finding
        for finding in findings
        if finding.level != "ok" and not finding.remedy.startswith("find out what delays it")
    ]
