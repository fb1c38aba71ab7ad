"""Runs the checks, one after another, each by itself: a failure of one says nothing about the next."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphnic.errors import InputError, MorphnicError

from ..connect import open as open_device
from ..device import Device, fields_of
from . import allocation_checks, link_checks, traffic_checks
from .bench import Bench, CheckFailed, CheckSkipped, CheckWarned
from .report import Outcome, Report, Result

log = logging.getLogger(__name__)

_TIMEOUT = 60.0


@dataclass(frozen=True)
class Check:
    """One check: raises `CheckFailed`, `CheckSkipped`, `CheckWarned`, or an error of the link.

    timeout: seconds it may take; wherever it waits, it gives up then, and one that took longer has failed.
    """

    name: str
    function: Callable[[Bench], None]
    timeout: float = _TIMEOUT

    @property
    def description(self) -> str:
        """What it checks, in a sentence."""
        return inspect.getdoc(self.function) or ""


CHECKS = (
    Check("identity", link_checks.identity),
    Check("device-time", link_checks.device_time),
    Check("scratch", link_checks.scratch),
    Check("read-only", link_checks.read_only),
    Check("unmapped", link_checks.unmapped),
    Check("absent-rows", link_checks.absent_rows),
    Check("lists", link_checks.lists),
    Check("long-lists", link_checks.long_lists),
    Check("windows", link_checks.windows),
    Check("allocation-roll-back", allocation_checks.stage_and_roll_back),
    Check("allocation-confirm", allocation_checks.confirm),
    Check("allocation-expire", allocation_checks.expire),
    Check("allocation-refusals", allocation_checks.refusals),
    Check("allocation-fencing", allocation_checks.fencing),
    Check("generator-loop", traffic_checks.generator_loop),
)


def run_on(device: Device, *, checks: Sequence[Check] = CHECKS, suite: str = "conformance",
           on_result: Callable[[Result], None] | None = None) -> Report:
    """Run `checks` on an open device; `on_result` hears of each as it ends."""
    report = Report(device.url, fields_of(device.identity), suite=suite)
    for check in checks:
        result = _run_one(device, check)
        report.results.append(result)
        log.info("%s: %s %s", check.name, result.outcome, result.message)
        if on_result:
            on_result(result)
    return report


def _run_one(device: Device, check: Check) -> Result:
    started = time.monotonic()
    outcome, message = Outcome.PASS, ""
    try:
        check.function(Bench(device, patience=check.timeout))
    except CheckWarned as warned:
        outcome, message = Outcome.WARN, str(warned)
    except CheckSkipped as skipped:
        outcome, message = Outcome.SKIP, str(skipped)
    except CheckFailed as failure:
        outcome, message = Outcome.FAIL, str(failure)
    except MorphnicError as error:
        outcome, message = Outcome.FAIL, f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    if outcome in (Outcome.PASS, Outcome.WARN) and seconds > check.timeout:
        outcome, message = Outcome.FAIL, f"it took {seconds:.1f} s, and may take {check.timeout:g} s"
    return Result(check.name, outcome, round(seconds, 3), message, check.description)


def run(url: str, *, junit: Path | None = None, report: Path | None = None, only: Sequence[str] = (),
        timeout: float = 2.0, record: Path | None = None,
        on_result: Callable[[Result], None] | None = None) -> Report:
    """Run the suite (or the checks named in `only`) on the device at `url`, and write what was asked for.

    junit, report: files for JUnit XML and JSON. timeout: of one exchange, in seconds. record: file to record the
    session to, which `replay://` runs the suite on again.
    """
    known = {check.name: check for check in CHECKS}
    if unknown := [name for name in only if name not in known]:
        raise InputError(f"there is no check {', '.join(unknown)}; there are {', '.join(known)}")
    checks = [known[name] for name in only] or list(CHECKS)
    with open_device(url, writer=True, timeout=timeout, record=record) as device:
        found = run_on(device, checks=checks, on_result=on_result)
    found.write(junit=junit, report=report)
    return found
