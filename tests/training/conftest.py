"""Most tests of training need the packages of the `train` extra; where they are missing, pytest says so."""

import importlib.util


MISSING = [name for name in ("trl", "peft", "datasets") if importlib.util.find_spec(name) is None]
NEEDY = ("every_mix", "launch", "peer_recipes", "sharding", "sources", "stages", "trainer", "zero3")

collect_ignore = [f"test_{name}.py" for name in NEEDY] if MISSING else []


def pytest_report_header():
    return (
        f"left out: tests of training need {', '.join(MISSING)} (pip install 'saven-hf[train]')" if MISSING else None
    )
