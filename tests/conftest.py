"""What every test may ask for; fixtures live beside what they start, in tests/services and tests/faults."""

import os

import pytest

# In the order in which they import one another, or pytest finds them imported before it can rewrite asserts.
pytest_plugins = [
    "tests.faults.proxy",
    "tests.services.postgres",
    "tests.services.redis",
    "tests.services.browser",
    "tests.services.app",
    "tests.services.standins",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="fail the run if any test was skipped (always on where CI=true)",
    )


def _skipped(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or not config.getoption("--no-skips"):
        return []
    reports: list[pytest.TestReport] = reporter.stats.get("skipped", [])
    return reports


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test is a hole in the proof, so a run that promises none fails over it."""
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if skipped := _skipped(config):
        terminalreporter.section("no skips allowed", red=True)
        for report in skipped:
            terminalreporter.write_line(f"skipped: {report.nodeid}")
