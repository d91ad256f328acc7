"""Hooks of the peer tests: paths, the torchvision shim, and the check of every skip against skips.toml.

Only `tests/peer/run.py` runs these tests; in any other pytest run this folder is left out.
"""

import fnmatch
import importlib.util
import os
import sys
from pathlib import Path


try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10: pytest itself brings tomli there
    import tomli as tomllib

ROOT = os.environ.get("SAVEN_PEER_ROOT")
MODE = os.environ.get("SAVEN_PEER_MODE", "plain")
collect_ignore_glob = [] if ROOT else ["test_*.py"]


def prepare_environment() -> None:
    """Runs before anything imports transformers: shows or hides torchvision, puts transformers' tests on the path."""
    sys.path.insert(0, ROOT)
    if MODE == "torchvision":
        from torchvision_shim import declare_operators

        declare_operators()
        import torchvision  # noqa: F401  fails here, and not as hundreds of skips, when the shim no longer does
    else:
        # None makes both `import torchvision` and transformers' availability check answer "not installed".
        sys.modules["torchvision"] = None
    import tests

    if not Path(tests.__file__).is_relative_to(ROOT):
        raise RuntimeError(f"`tests` is {tests.__file__}, expected transformers' tests in {ROOT}")


def is_present(name: str) -> bool:
    """Whether a package, or a kind of hardware, that an entry of the table calls missing is there after all."""
    import torch

    if name == "accelerator":
        return torch.accelerator.is_available()
    if name == "accelerators":
        return torch.accelerator.is_available() and torch.accelerator.device_count() > 1
    if name == "mps":
        return torch.backends.mps.is_available()
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


class SkipTable:
    """Collects the outcome of every test and holds the skips against the table.

    A skip is accepted if an entry names the test and `says` occurs in the skip's message. Entries (and patterns in
    them) that nothing used are errors too, so the table is exactly the list of what does not run; except where what
    the entry calls `missing` is there.
    """

    def __init__(self, table: dict, mode: str, has_clone: bool):
        self.variant = f"{mode}{'_clone' if has_clone else ''}"
        self.minimum = table["passes"][self.variant]
        self.entries = [
            entry
            for entry in table["skip"]
            if entry.get("only", mode) == mode and (has_clone or not entry.get("needs_clone", False))
        ]
        self.used: set[tuple[int, str]] = set()
        self.unlisted: list[str] = []
        self.passed: set[str] = set()
        self.not_passed: set[str] = set()
        self.skipped = 0

    def record(self, test: str, outcome: str, message: str) -> None:
        """Takes the outcome of one phase of a test ("passed", "failed", "skipped") or of one of its subtests."""
        if outcome == "passed":
            self.passed.add(test)
            return
        self.not_passed.add(test)
        if outcome != "skipped":
            return
        self.skipped += 1
        accepted = False
        for number, entry in enumerate(self.entries):
            for pattern in entry["tests"]:
                if fnmatch.fnmatchcase(test, pattern) and entry["says"] in message:
                    self.used.add((number, pattern))
                    accepted = True
        if not accepted:
            self.unlisted.append(f"{test}: {message}")

    def problems(self) -> list[str]:
        """What is wrong with this run as a whole, in words."""
        found = [f"skip that is not in skips.toml: {line}" for line in self.unlisted]
        for number, entry in enumerate(self.entries):
            if "missing" in entry and is_present(entry["missing"]):
                continue
            for pattern in entry["tests"]:
                if (number, pattern) not in self.used:
                    found.append(f"skips.toml lists {pattern} ({entry['says']!r}), but no such skip happened")
        passes = self.num_passes()
        if passes < self.minimum:
            found.append(f"{passes} tests passed, skips.toml asks for at least {self.minimum} ({self.variant})")
        return found

    def num_passes(self) -> int:
        return len(self.passed - self.not_passed)


def _skip_message(report) -> str:
    longrepr = report.longrepr
    return longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)


if ROOT:
    prepare_environment()
    import json

    import pytest

    CHECKED = os.environ.get("SAVEN_PEER_CHECK") == "1"
    ORIGIN = json.loads((Path(ROOT) / "origin.json").read_text())
    OUTCOMES = SkipTable(
        tomllib.loads((Path(__file__).parent / "skips.toml").read_text()), MODE, ORIGIN["clone"] is not None
    )

    def pytest_report_header(config):
        generation = ORIGIN["clone"] or "none (generation suite left out; set TRANSFORMERS_CLONE)"
        return [f"suites: transformers {ORIGIN['transformers']}, mode {MODE}, clone: {generation}"]

    def pytest_runtest_logreport(report):
        if report.when == "call" or report.outcome != "passed":
            OUTCOMES.record(report.nodeid.replace("::()", ""), report.outcome, _skip_message(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(session, exitstatus):
        if CHECKED and exitstatus == 0 and OUTCOMES.problems():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(terminalreporter):
        terminalreporter.write_line(
            f"peer tests ({OUTCOMES.variant}): {OUTCOMES.num_passes()} passed"
            f" (at least {OUTCOMES.minimum} needed), {OUTCOMES.skipped} skipped"
        )
        if CHECKED:
            for line in OUTCOMES.problems():
                terminalreporter.write_line(line, red=True)
