"""A pytest plugin for tests that are asked for by name: a skipped one fails the run, which says what is missing.

PYTHONPATH=tests .venv/bin/pytest -p must_run tests/host

`make test` leaves it out, so that it passes on a machine without ComfyUI; `make test-host` has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest


def skipped_for(reports: list[pytest.TestReport]) -> Counter[str]:
    """How many tests were skipped, by reason."""
    reasons = (report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr) for report in reports)
    return Counter(reason.removeprefix("Skipped: ") for reason in reasons)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    yield  # pytest's own summary comes first: what is missing stands last
    for reason, count in skipped_for(terminalreporter.getreports("skipped")).items():
        terminalreporter.write_line(f"FAILED: {count} tests did not run: {reason}", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, pytest.TerminalReporter) and reporter.stats.get("skipped"):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
