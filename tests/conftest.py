"""What every test run shares: seeds and skips are shown, and in CI a skip that nobody allowed fails the run."""

import os
import signal

import pytest

#: Tests that may be skipped in CI: part of the test's id -> why that is acceptable. Everything else must run there.
ALLOWED_SKIPS: dict[str, str] = {
    "test_frames_of_the_capture": "needs the recorded capture in MORPHNIC_DATA; generated frames cover the rest",
    "test_probe_boots_under_emulation": "needs QEMU; the probe's bytes are compared with its source everywhere",
    "test_guest.py": "needs what `make guest` fetches; tests/sim/test_vfio_user.py has the function without a guest",
    "test_client_certificate_is_asked_for": "needs the openssl command to make certificates",
    "test_tls_": "needs the openssl command to make certificates",
}


def pytest_configure(config):
    """A run that a shell started in the background ignores SIGINT, and so would every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _skips(terminalreporter):
    for report in terminalreporter.stats.get("skipped", []):
        yield report.nodeid, report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def unallowed(skips):
    """Ids of the skipped tests that `ALLOWED_SKIPS` does not name."""
    return [nodeid for nodeid, _ in skips if not any(part in nodeid for part in ALLOWED_SKIPS)]


def pytest_terminal_summary(terminalreporter):
    """Print the allowed skips with their reasons, and those that are not allowed."""
    skips = list(_skips(terminalreporter))
    if not os.environ.get("CI"):
        return
    for part, why in ALLOWED_SKIPS.items():
        terminalreporter.write_line(f"allowed to skip: {part}: {why}")
    for nodeid in unallowed(skips):
        terminalreporter.write_line(f"NOT allowed to skip in CI: {nodeid}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Fail a CI run in which a test was skipped that must run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI") or exitstatus != pytest.ExitCode.OK:
        return
    if unallowed(list(_skips(reporter))):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
