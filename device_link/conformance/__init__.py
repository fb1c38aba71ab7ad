"""One suite of checks for every device: simulated, on a board, or a recorded session.

    report = device_link.conformance.run("sim://", junit=Path("report.xml"))
    report.passed

The checks leave the device as they found it, but for its epoch and its counters. Nobody else may write meanwhile.
"""

from .report import Outcome, Report, Result
from .runner import CHECKS, Check, run, run_on

__all__ = ["CHECKS", "Check", "Outcome", "Report", "Result", "run", "run_on"]
