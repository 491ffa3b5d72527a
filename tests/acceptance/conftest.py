"""Long checks: `make acceptance` runs them and writes acceptance-<date>.json."""

import datetime
import json
import platform
from pathlib import Path

import pytest

RESULTS: dict[str, dict] = {}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(str(item.fspath)).parents:
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture
def figures(request):
    """A mapping the test fills; it ends up in the results file."""
    return RESULTS.setdefault(request.node.name, {}).setdefault("figures", {})


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and "acceptance" in item.keywords:
        entry = RESULTS.setdefault(item.name, {})
        entry["outcome"], entry["seconds"] = report.outcome, round(report.duration, 1)


def pytest_sessionfinish(session):
    if RESULTS:
        now = datetime.datetime.now(datetime.UTC)
        path = Path(f"acceptance-{now:%Y%m%d-%H%M}.json")
        content = {"date": f"{now:%Y-%m-%d %H:%M} UTC", "machine": platform.platform(),
                   "checks": RESULTS}
        path.write_text(json.dumps(content, indent=2) + "\n")
        print(f"\nresults: {path}")
