"""What a conformance run found, for people, programs and continuous integration."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from morphnic.errors import InputError

REPORT_SCHEMA = 1


class Outcome(StrEnum):
    """How a check ended."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Result:
    """One check: `message` says why it failed, was skipped, or what is odd though it passed."""

    name: str
    outcome: Outcome
    seconds: float
    message: str = ""
    description: str = ""


@dataclass
class Report:
    """All results of a run; `device` is the identity that the device told, as plain data."""

    url: str
    device: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    suite: str = "conformance"

    @property
    def passed(self) -> bool:
        """Whether checks ran and none failed."""
        return self.count(Outcome.PASS) > 0 and not self.count(Outcome.FAIL)

    def count(self, outcome: Outcome) -> int:
        """Number of checks that ended so."""
        return sum(result.outcome is outcome for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"schema": REPORT_SCHEMA, "url": self.url, "device": self.device, "passed": self.passed,
                "counts": {str(outcome): self.count(outcome) for outcome in Outcome},
                "results": [asdict(result) for result in self.results]}

    def to_junit(self) -> str:
        """The report as JUnit XML."""
        suite = ElementTree.Element("testsuite", {
            "name": f"morphnic {self.suite}", "tests": str(len(self.results)), "errors": "0",
            "failures": str(self.count(Outcome.FAIL)), "skipped": str(self.count(Outcome.SKIP)),
            "time": f"{sum(result.seconds for result in self.results):.3f}"})
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in [("url", self.url), *sorted(self.device.items())]:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _printable(str(value))})
        for result in self.results:
            case = ElementTree.SubElement(suite, "testcase", {
                "classname": self.suite, "name": result.name, "time": f"{result.seconds:.3f}"})
            if result.outcome is Outcome.WARN:
                ElementTree.SubElement(case, "system-out").text = _printable(f"warning: {result.message}")
            elif result.outcome is not Outcome.PASS:
                kind = "failure" if result.outcome is Outcome.FAIL else "skipped"
                ElementTree.SubElement(case, kind, {"message": _printable(result.message)})
        root = ElementTree.Element("testsuites")
        root.append(suite)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def write(self, *, junit: Path | None = None, report: Path | None = None) -> None:
        """Write the report to files."""
        for path, text in ((junit, self.to_junit), (report, lambda: json.dumps(self.to_json(), indent=2) + "\n")):
            if path is not None:
                try:
                    path.write_text(text(), encoding="utf-8")
                except OSError as error:
                    raise InputError(f"the report {path} cannot be written: {error.strerror}") from error


def _printable(text: str) -> str:
    """`text` without characters that XML forbids."""
    return "".join(one if one in "\t\n" or " " <= one <= "\ud7ff" or one >= "\ue000" else "?" for one in text)
