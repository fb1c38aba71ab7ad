"""Check what this machine needs for Morphnic and print the exact remedy of each fault.

Nothing is installed, and nothing changed outside of the project's own cache. Exit code 3 when something needed is
missing; a warning (a serial port that only root may open, no KVM) leaves 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from morphnic import settings
from morphnic.program import Context

from . import boards, software, virtual
from .finding import Finding


def configure(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print the findings; 3 when something is missing."""
    findings = list(all_findings(context))
    broken = any(finding.state == "missing" for finding in findings)
    if context.json:
        context.document("doctor", {
            "ok": not broken, "findings": [asdict(finding) for finding in findings],
            "settings": settings.as_document(context.settings),
        })
        return 3 if broken else 0
    for finding in findings:
        print(f"{finding.state:<8} {finding.check:<18} {finding.detail}")
        if finding.remedy:
            print(f"{'':<27} -> {finding.remedy}")
    return 3 if broken else 0


def all_findings(context: Context) -> Iterator[Finding]:
    """Every check, in the order in which a new machine meets them."""
    yield software.python_version()
    yield software.shared_libpython()
    for tool in ("g++", "make"):
        yield software.tool_on_path(tool)
    yield software.compiler()
    yield software.verilator()
    yield software.verilator_shim()
    for package, extra in (("amaranth", "gateware"), ("amaranth_boards", "boards"), ("fastapi", "manager"),
                           ("numpy", "manager")):
        yield software.python_package(package, extra)
    yield software.run_directory(settings.run_directory())
    yield software.state_directory(context.settings.agent.state_directory)
    yield boards.serial_group()
    yield boards.udev_rules()
    yield from boards.serial_ports()
    yield from boards.pcie_functions()
    yield virtual.qemu()
    yield virtual.kvm()
    yield virtual.guest()
    yield software.pressure_stall()
