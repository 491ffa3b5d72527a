"""The report's sections on a gamed reward and on judges, from a run's files."""

import json
import shutil

import pytest

from safeladder.ladder.report import write_report
from safeladder.ladder.report_data import load_run
from safeladder.ladder.report_monitor import judge_rows, monitor_charts, monitor_rows


@pytest.fixture
def watched(finished_run, tmp_path):
    """A run whose reward was watched, and whose judge cost something."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        if record["rung"] == "logic_rl" and record["kind"] == "rl":  # eight steps: 0 to 7
            step = record["step"]
            record["metrics"] |= {
                "monitor/gap/answer/second": 0.1 * step, "monitor/length/answer": 0.5,
                "monitor/between/format/answer": -0.25,
                "verdicts_read/judge": 9.0, "unreadable/judge": 1.0}
            if step != 3:
                record["metrics"]["monitor/agreement/answer/second"] = 1.0 - 0.1 * step
            record["time"]["judges"] = {"judge": {
                "calls": 5, "cached": 2, "prompt_tokens": 1000, "completion_tokens": 50,
                "seconds": 2.5}}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["rungs"]["logic_rl"]["evaluation_judges"] = {"judge": {"cached": 40, "failed": 1}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_start_and_end_are_means_over_a_quarter_of_the_steps(watched):
    rows = {row["what"]: row for row in monitor_rows(load_run(watched))}
    gap = rows["answer above second, which is not rewarded"]
    # two of eight steps: (0 + 0.1) / 2 and (0.6 + 0.7) / 2
    assert (gap["start"], gap["end"], gap["steps"]) == ("+0.05", "+0.65", "8")
    agreement = rows["answer with second, which is not rewarded"]
    # seven steps have it: one each of 0 and 7
    assert (agreement["start"], agreement["end"], agreement["steps"]) == ("+1.00", "+0.30", "7")
    assert rows["answer with the length of the response"]["end"] == "+0.50"
    assert rows["format with answer"]["kind"] == "correlation"


def test_judges_are_counted_by_rung_and_phase(watched):
    training, evaluation = judge_rows(load_run(watched))
    assert training == {
        "where": "training of logic_rl", "judge": "judge", "unreadable": "8 of 80 (10.0%)",
        "calls": "40", "cached": "16", "failed": "0", "tokens": "8,000 + 400",
        "latency": "0.50 s"}
    assert evaluation["where"] == "evaluation of logic_rl"
    assert (evaluation["cached"], evaluation["failed"], evaluation["latency"]) == (
        "40", "1", "\u2013")


def test_the_page_shows_them(watched, finished_run):
    assert [chart.id for chart in monitor_charts(load_run(watched))] == [
        "monitor-gap-logic_rl", "monitor-agreement-logic_rl", "monitor-length-logic_rl"]
    page = write_report(watched).read_text()
    assert "monitor-gap-logic_rl" in page
    assert "8 of 80 (10.0%)" in page and "answer above second" in page
    assert "Judges</h2>" not in write_report(finished_run).read_text()
