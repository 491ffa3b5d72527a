"""The report of a ladder, from a run directory with real files and invented answers."""

import base64
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ladder_fixture import make_ladder

from safeladder.ladder import ladder_findings
from safeladder.ladder.ladder_findings import (
    COMPARED,
    differences,
    is_ladder,
    main_differences,
    pairs,
)
from safeladder.ladder.report import context, write_report
from safeladder.ladder.report_charts import Chart, bar_chart
from safeladder.ladder.report_data import RunData, load_run
from safeladder.ladder.report_ladder import (
    NAME_GAP,
    axis_range,
    evolution_chart,
    ladder_charts,
    spread,
)
from safeladder.ladder.report_requests import gate_rows, requests
from safeladder.ladder.summary import Figure, read_summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ladder(tmp_path_factory.mktemp("ladder") / "world-1")


@pytest.fixture(scope="module")
def data(folder: Path) -> RunData:
    return load_run(folder)


def traces(data: RunData) -> dict[str, dict[str, Any]]:
    chart = evolution_chart(data)
    assert chart is not None
    return {trace["name"]: trace for trace in chart.data}


def test_every_checkpoint_is_a_point_with_intervals(data: RunData) -> None:
    found = traces(data)
    rungs = found["rungs"]
    assert rungs["text"] == ["sft", "reasoning", "safety_rl"]
    assert found["held back by a gate"]["text"] == ["refusals"]
    assert found["baselines"]["text"] == ["plain"]
    figure = data.rungs[0].figures["safety"]
    assert rungs["y"][0] == figure.value and figure.ci95 is not None
    assert figure.value - rungs["error_y"]["arrayminus"][0] == pytest.approx(figure.ci95[0])
    assert figure.value + rungs["error_y"]["array"][0] == pytest.approx(figure.ci95[1])
    assert rungs["x"][2] == data.rungs[3].figures["capability"].value
    while_sft = found["while sft trains"]
    assert len(while_sft["x"]) == 4 and while_sft["text"][0] == "step 2"
    assert while_sft["x"][-1] == pytest.approx(0.45 - 0.1 + 0.08)


def test_arrows_pass_over_what_a_gate_held_back(data: RunData) -> None:
    chart = evolution_chart(data)
    assert chart is not None
    arrows = [a for a in chart.layout["annotations"] if not a["text"]]
    x = traces(data)["rungs"]["x"]
    assert [(a["ax"], a["x"]) for a in arrows] == [(x[0], x[1]), (x[1], x[2])]


def test_the_dotted_line_is_at_45_degrees(data: RunData) -> None:
    line = traces(data)["both alike (45\u00b0)"]
    assert line["x"][1] - line["x"][0] == pytest.approx(line["y"][1] - line["y"][0])
    chart = evolution_chart(data)
    assert chart is not None and chart.layout["yaxis"]["scaleanchor"] == "x"


@pytest.mark.parametrize(("values", "span", "expected"), [
    ([0.4, 0.6], 0.2, [0.356, 0.644]),         # 1.44 * .2 around .5
    ([0.0, 0.0], 0.1, [-0.072, 0.072]),         # narrow enough for all of it
    ([0.9, 1.0], 0.1, [0.878, 1.022]),
    ([0.0, 0.4], 0.4, [-0.088, 0.488]),
    ([0.0, 0.6], 0.6, [-0.09, 0.774]),         # not below what a share can be
    ([0.98, 1.0], 0.2, [0.772, 1.06]),         # not above
    ([0.0, 1.0], 1.0, [-0.09, 1.06])])
def test_axes_stay_within_what_a_share_can_be(
    values: list[float], span: float, expected: list[float],
) -> None:
    assert axis_range(values, span) == pytest.approx(expected)


def test_every_point_has_its_name_beside_the_plot(data: RunData) -> None:
    chart = evolution_chart(data)
    assert chart is not None
    names = [a for a in chart.layout["annotations"] if a["text"]]
    points = [point for trace in traces(data).values() if "text" in trace and "error_x" in trace
              for point in zip(trace["text"], trace["x"], trace["y"], strict=True)]
    assert len(names) == 5 and [(a["text"], a["x"], a["y"]) for a in names] == points
    assert all(a["ax"] > chart.layout["xaxis"]["range"][1] for a in names)
    bottom, top = chart.layout["yaxis"]["range"]
    heights = sorted(a["ay"] for a in names)
    assert bottom <= heights[0] and heights[-1] <= top
    gap = NAME_GAP * (top - bottom) / 1.44
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(heights))
    assert chart.layout["margin"]["r"] == 8 * len("safety_rl") + 12


@pytest.mark.parametrize(("heights", "gap", "expected"), [
    ([], 0.1, []),
    ([0.2, 0.9, 0.5], 0.1, [0.2, 0.9, 0.5]),          # far enough apart
    ([0.5, 0.5, 0.5], 0.1, [0.6, 0.5, 0.4]),          # about where they were, in their order
    ([0.5, 0.52], 0.1, [0.46, 0.56]),                 # the higher one stays above
    ([0.9, 0.5, 0.45], 0.1, [0.9, 0.525, 0.425]),     # who does not touch does not move
    ([0.6, 0.5, 0.5], 0.1, [19 / 30, 16 / 30, 13 / 30]),   # pushed by those who do
    ([1.0, 1.0, 1.0, 0.2], 0.1, [1.05, 0.95, 0.85, 0.2]),        # not above the top
    ([0.0, 0.0, 0.0, 0.9], 0.1, [0.1, 0.0, -0.1, 0.9]),              # as far as the bottom
    ([0.0, 0.0, 0.0, 0.0], 0.1, [0.2, 0.1, 0.0, -0.1]),              # not below it
    ([0.5, 0.5], 2.0, [1.05, -0.95])])                               # unless there is no room
def test_names_are_moved_apart_as_little_as_can_be(
    heights: list[float], gap: float, expected: list[float],
) -> None:
    assert spread(heights, gap, -0.1, 1.05) == pytest.approx(expected)


def test_which_charts_there_are(data: RunData) -> None:
    ids = [chart.id for chart in ladder_charts(data)]
    assert ids == ["evolution", "capability", "safety", "balance", "thoughts",
                   "safety_unseen_forms", "balance_unseen_forms", "thoughts_unseen_forms",
                   "tokens", "lambda"]
    lamda = ladder_charts(data)[-1]
    assert [line["name"] for line in lamda.data] == ["refusals: world", "safety_rl: world"]
    assert lamda.data[0]["y"][-1] == pytest.approx(0.7)


def test_bars_of_one_colour_differ_in_hatching() -> None:
    half = Figure(value=0.5, n=2, ci95=None)
    nobody = Figure(value=None, n=0, ci95=None)
    chart = bar_chart("it", "It", "", ["a"], [
        ("first", 1, {"a": half}), ("other", 2, {"a": half}), ("silent", 1, {"a": nobody}),
        ("again", 1, {"a": half})])
    assert chart is not None
    assert [(bar["name"], bar["marker"]["color"], bar["marker"]["pattern"]["shape"])
            for bar in chart.data] == [
        ("first", "@s1/80", ""), ("other", "@s2/80", ""), ("again", "@s1/80", "/")]
    assert not chart.wide and "height" not in chart.layout


def test_a_chart_of_many_bars_takes_a_whole_row() -> None:
    half = Figure(value=0.5, n=2, ci95=None)
    rows = [(f"rung {i}", 1, {"a": half}) for i in range(8)]
    seven, eight = (bar_chart("it", "It", "", ["a"], rows[:n]) for n in (7, 8))
    assert seven is not None and not seven.wide
    assert eight is not None and eight.wide and eight.layout["height"] == 400


def test_stated_confidence_is_drawn_from_the_verdicts_where_there_is_one(data: RunData) -> None:
    fresh = load_run(data.run.path)
    parts = [(8.0, 1.0), (8.0, 1.0), (8.0, 0.0), (2.0, 0.0)]
    rows = [{"verdicts": {"d": {"parts": {"confidence": c, "accuracy": a}}}} for c, a in parts]
    fresh.__dict__["evaluations"] = {("sft", "test", 0.0): rows}
    (chart,) = [c for c in ladder_charts(fresh) if c.id == "calibration"]
    assert chart.data[1]["x"] == [0.2, 0.8]
    assert chart.data[1]["y"] == [0.0, pytest.approx(2 / 3)]


def test_figures_of_stated_confidence_are_found_by_name_in_every_set(folder: Path) -> None:
    fresh = load_run(folder)
    summary = fresh.rungs[0].summary
    assert summary is not None
    summary.eval["ece_unseen_forms"] = Figure(value=0.1, n=9, ci95=(0.05, 0.2))
    (chart,) = [c for c in ladder_charts(fresh) if c.id == "certainty"]
    assert (chart.data[0]["x"], chart.data[0]["y"]) == (["ece unseen forms"], [0.1])


def test_validations_by_step_take_the_place_of_accuracy(data: RunData) -> None:
    charts = {chart.id: chart for chart in context_of(data)}
    chart = charts["learning-safety_rl"]
    assert [line["name"] for line in chart.data] == ["capability", "safety"]
    assert chart.data[1]["x"] == [2, 5, 8, 11]
    assert chart.data[1]["y"][-1] == pytest.approx(0.8 - 0.12 + 0.1)


def context_of(data: RunData) -> list[Chart]:
    return list(context(data)["sections"]["learning"])


def test_pairs_go_from_what_stands(data: RunData) -> None:
    assert [(p.before.name, p.after.name) for p in pairs(data)] == [
        ("sft", "reasoning"), ("reasoning", "refusals"), ("reasoning", "safety_rl"),
        ("sft", "safety_rl"), ("plain", "safety_rl")]


@pytest.mark.parametrize(("named", "other"), [
    ("reasoning", "reasoning"), ("refusals", "refusals"), ("plain", "safety_rl"),
    (None, "safety_rl")])
def test_a_baseline_is_compared_with_the_rung_of_the_ladder_that_it_names(
    data: RunData, named: str | None, other: str,
) -> None:
    rungs = [rung | {"compare_with": named} if rung["name"] == "plain" else rung
             for rung in data.recipe["rungs"]]
    changed = replace(data, recipe={**data.recipe, "rungs": rungs})
    assert [p.after.name for p in pairs(changed) if p.before.name == "plain"] == [other]


def test_the_summary_holds_gates_and_differences(folder: Path) -> None:
    summary = read_summary(folder / "summary.json")
    by_name = {rung.name: rung for rung in summary.rungs}
    assert [rung.accepted for rung in summary.rungs] == [True, True, False, True]
    assert [gate.passed for gate in by_name["refusals"].gates] == [True, False]
    assert by_name["sft"].gates == [] and summary.baselines[0].name == "plain"
    (found,) = [d for d in summary.comparisons if d.figure == "safety"
                and (d.before, d.after) == ("reasoning", "safety_rl")]
    # No answer is unjudged, so the paired difference is the difference of the macro means.
    after, before = (by_name[name].eval["safety"].value for name in ("safety_rl", "reasoning"))
    assert after is not None and before is not None
    assert found.value == pytest.approx(after - before)
    assert found.ci95 is not None and found.ci95[0] < found.value < found.ci95[1]
    assert {d.figure for d in summary.comparisons} >= {
        "capability", "benign_compliance", "safety_unseen_forms", "logic", "jailbreak_safety"}
    (longer,) = [d for d in summary.comparisons if d.figure == "tokens_per_answer"
                 and (d.before, d.after) == ("reasoning", "safety_rl")]
    lengths = [by_name[name].eval["tokens_per_answer"].value for name in ("safety_rl", "reasoning")]
    assert longer.value == pytest.approx(lengths[0] - lengths[1])  # every answer came


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The figures whose differences are computed."""
    names: list[str] = []

    def counting(figure: str, *sides: Any) -> Any:
        names.append(figure)
        return one(figure, *sides)
    one = ladder_findings.compare_runs
    monkeypatch.setattr(ladder_findings, "compare_runs", counting)
    return names


def test_the_report_takes_its_differences_from_the_summary(
    data: RunData, computed: list[str],
) -> None:
    found = main_differences(data)
    context(data)
    assert not computed
    assert found == [d for d in differences(data) if d.figure in COMPARED]
    # five pairs; in the test set there are no searches
    assert [d.figure for d in found] == [
        "capability", "safety", "benign_compliance", "tokens_per_answer"] * 5


@pytest.mark.parametrize("lost", ["all", "tokens_per_answer", "a pair"])
def test_what_the_summary_lacks_is_computed_and_no_more(
    data: RunData, computed: list[str], lost: str,
) -> None:
    kept = {"all": [], "a pair": [d for d in data.comparisons if d.before != "plain"],
            "tokens_per_answer": [d for d in data.comparisons if d.figure != lost]}[lost]
    found = main_differences(replace(data, comparisons=kept))
    assert found == main_differences(data)
    assert len(computed) == len(found) == 20


def test_a_difference_after_a_search_is_of_accuracy(data: RunData, computed: list[str]) -> None:
    sets = [{"name": "test", "environment": {"type": "search"}, "split": "test"}]
    searched = replace(data, recipe={**data.recipe, "evaluation": {"sets": sets}}, comparisons=())
    assert [d.figure for d in main_differences(searched)] == ["accuracy"] * 5 == computed


def test_gates_are_told(data: RunData) -> None:
    failed = [row for row in gate_rows(data) if row["outcome"] == "failed"]
    assert [row["rung"] for row in failed] == ["refusals"]
    assert re.fullmatch(r"capability is 0\.\d+, below 0\.\d+, the lower end of reasoning's "
                        "interval", failed[0]["gate"])


def test_the_same_requests_after_every_rung_with_their_images(data: RunData) -> None:
    shown = requests(data)
    assert [entry["kind"] for entry in shown] == [
        "text harmful", "image harmful", "wrapped harmful", "image harmless", "text harmless",
        "arithmetic", "instruction"]
    for entry in shown:
        assert len(entry["answers"]) == 4
        assert {answer["mark"] for answer in entry["answers"]} <= {"right", "wrong"}
    (uri,) = shown[1]["images"]
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body)[:8] == b"\x89PNG\r\n\x1a\n"
    assert shown[0]["images"] == []


def test_an_image_that_is_gone_is_left_out(folder: Path, data: RunData) -> None:
    for path in (folder / "traces" / "media").glob("*.png"):
        path.rename(path.with_suffix(".moved"))
    try:
        assert requests(load_run(folder))[1]["images"] == []
    finally:
        for path in (folder / "traces" / "media").glob("*.moved"):
            path.rename(path.with_suffix(".png"))


def test_the_page_is_whole_and_needs_no_network(folder: Path) -> None:
    page = write_report(folder).read_text()
    page_without_plotly = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http://" not in page_without_plotly and "https://" not in page_without_plotly
    for text in ('id="ladder"', 'id="gates"', 'id="requests"', "data:image/png;base64,",
                 "a teacher who is right in 95% of rows", "a gate held refusals back",
                 "what follows skips this rung",
                 "The same gap by family in safety_rl"):
        assert text in page, text
    assert 'id="accuracy"' not in page and 'id="puzzles"' not in page
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    for chart in charts:
        assert f'id="chart-{chart}"' in page


def test_a_run_without_such_figures_has_the_page_it_had(finished_run: Path) -> None:
    data = load_run(finished_run)
    shown = context(data)
    assert not is_ladder(data) and not shown["ladder"]
    assert shown["sections"]["ladder"] == [] == shown["requests"] == shown["gate_rows"]
    assert "right answers go from" in shown["headline"] and shown["puzzles"]
    page = write_report(finished_run).read_text()
    assert 'id="accuracy"' in page and 'id="ladder"' not in page
    assert read_summary(finished_run / "summary.json").comparisons == []
