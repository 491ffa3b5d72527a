import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safeladder.eval.deliberation import Answer, answer_metrics
from safeladder.eval.statistics import PairedDifference
from safeladder.ladder.report_charts import (
    Axes,
    Line,
    figure_text,
    interval_chart,
    line_chart,
    running_mean,
    smoothing_window,
)
from safeladder.ladder.report_data import RunData, RungEntry, Series, item_of_row
from safeladder.ladder.report_findings import (
    accuracy_label,
    gaps,
    plateau,
    shown_prompts,
    totals,
)
from safeladder.ladder.report_sections import mean_speeds, phase_seconds
from safeladder.ladder.report_tables import difference_text, figure_tables, headline, tiles
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import Figure, RungSummary

ACCURACY = Figure(value=0.5, n=4, ci95=(0.25, 0.8))


def row(prompt_id: str, people: int = 2, verdict_class: str = "correct", **values: Any) -> dict[
        str, Any]:
    return {"rung": "rl", "step": -1, "split": "test", "temperature": 0.0, "prompt_id": prompt_id,
            "source": "kk", "response": "<think>wait</think>x", "num_tokens": 3,
            "status": "completed", "meta": {"people": people}, "verdicts": {
                "v": {"score": 1.0, "verdict_class": verdict_class,
                      "parts": {"format": 1.0, "answer": 1.0}}}, **values}


def run_data(records: list[dict[str, Any]], *rungs: str) -> RunData:
    entries = [RungEntry(name, "rl", False, "", RungSummary(
        name=name, seconds=1.0, steps=1, eval={"kk2_accuracy": ACCURACY})) for name in rungs]
    return RunData(RunDir(Path("nowhere")), {}, {}, entries, records, None, 0.0, True)


def test_a_run_without_greedy_figures_has_a_headline() -> None:
    rung = RungEntry("rl", "rl", False, "a noisy teacher", RungSummary(
        name="rl", seconds=1.0, steps=1, eval={"kk2_accuracy_t1": ACCURACY}))
    data = RunData(RunDir(Path("nowhere")), {}, {}, [rung], [], None, 0.0, True)
    assert headline(data, []) == (
        "After rl, no accuracy was taken; rl: a noisy teacher. Held-out prompts, greedy, 95% "
        "intervals.")


def test_figures_of_a_search_are_no_further_accuracies() -> None:
    answers = [Answer(str(i), str(i), 1.0, 1.0, 8, groups=("tier_known",)) for i in range(4)]
    figures = {name: Figure(**asdict(found)) for name, found in answer_metrics(answers).items()}
    rung = RungEntry("rl", "rl", False, "", RungSummary(
        name="rl", seconds=1.0, steps=1, eval={"microworld_search_accuracy": ACCURACY, **figures}))
    data = RunData(RunDir(Path("nowhere")), {}, {}, [rung], [], None, 0.0, True)
    assert headline(data, []).replace("\u00a0", " ") == (
        "After rl, right answers are 50.0% [25.0, 80.0] on 4 microworld search. Held-out prompts, "
        "greedy, 95% intervals.")
    assert [tile.label for tile in tiles(data, [])] == ["microworld search", "all rungs"]


def test_figures_without_the_name_of_their_set_have_a_table_of_their_own() -> None:
    rung = RungEntry("rl", "rl", False, "", RungSummary(name="rl", seconds=1.0, steps=1, eval={
        "accuracy": ACCURACY, "tokens_per_answer_search": ACCURACY}))
    sets = [{"name": "search", "split": "test"}]
    data = RunData(RunDir(Path("nowhere")), {"evaluation": {"sets": sets}}, {}, [rung], [], None,
                   0.0, True)
    data.__dict__["evaluations"] = {("rl", "search", 0.0): []}
    assert {table["ending"]: [row["name"] for row in table["rows"]]
            for table in figure_tables(data)} == {
        "": ["accuracy"], "_search": ["tokens_per_answer"]}


def series(*values: float) -> Series:
    return Series(list(range(len(values))), list(values))


def test_plateau_by_hand() -> None:
    # The last quarter is 1.00, 0.98, 0.96, 0.94: a line from 1 to .94 -> 6% of 1
    loss = series(*[2.0] * 12, 1.00, 0.98, 0.96, 0.94)
    check = plateau(loss, series(), series(*[0.004] * 16))
    assert check is not None
    assert check.improvement == pytest.approx(0.06)
    assert (check.constant_rate, check.points, check.held_out, check.reached) == (
        True, 4, False, False)


def test_plateau_is_that_of_the_validation_loss_where_it_has_enough_points() -> None:
    training, rates = series(*[2.0] * 12, 1.00, 0.98, 0.96, 0.94), series(*[0.004] * 16)
    check = plateau(training, series(*[3.0] * 6, 2.0, 1.99), rates)  # 0.5%
    assert check is not None and check.held_out and check.reached
    assert (check.points, check.improvement) == (2, pytest.approx(0.005))
    check = plateau(training, series(*[3.0] * 5, 2.0, 1.99), rates)  # seven points
    assert check is not None and not check.held_out


def test_plateau_is_reached_below_two_percent_at_a_constant_rate_only() -> None:
    loss = series(*[2.0] * 12, 1.000, 0.994, 0.988, 0.982)  # 1.8%
    falling = series(*[0.004] * 14, 0.002, 0.001)
    for rates, reached in ((series(*[0.004] * 16), True), (falling, False), (series(), False)):
        check = plateau(loss, series(), rates)
        assert check is not None and check.reached is reached


def test_plateau_uses_every_step_not_the_two_ends() -> None:
    # Ends equal (1 and 1), but the least-squares line through 1, 1.2, .8, 1 falls by
    # 3 * .12 = .12 * 3: slope = (-1.5*0 + -.5*.2 + .5*-.2 + 1.5*0) / 5 = -.04 -> 1.06 to .94
    check = plateau(series(*[2.0] * 12, 1.0, 1.2, 0.8, 1.0), series(), series())
    assert check is not None
    assert check.improvement == pytest.approx(0.12 / 1.06)


def test_a_short_curve_has_no_plateau_check() -> None:
    assert plateau(series(1, 1, 1, 1, 1, 1, 1), series(1, 1), series()) is None


@pytest.mark.parametrize(("name", "label"), [
    ("kk2_accuracy", "two-person puzzles"), ("kk7_accuracy", "seven-person puzzles"),
    ("kk12_accuracy", "12-person puzzles"), ("aime_2024_accuracy", "aime 2024")])
def test_labels_of_accuracies(name: str, label: str) -> None:
    assert accuracy_label(name) == label


def test_figures_as_text() -> None:
    assert figure_text(ACCURACY) == "50.0% [25.0, 80.0]"
    assert figure_text(Figure(value=104.25, n=2, ci95=None), percent=False) == "104.2"
    assert figure_text(Figure(value=None, n=0, ci95=None, unjudged=3)) == "not judged"


def test_differences_as_text() -> None:
    assert difference_text(PairedDifference(0.363, 9, (0.316, 0.41), 0, (0.363,))) == \
        "+36.3 points [+31.6, +41.0]"
    assert difference_text(PairedDifference(-0.02, 9, None, 0, (-0.02,))) == "-2.0 points"
    assert difference_text(PairedDifference(None, 0, None, 9, ())) == "not judged"
    assert difference_text(PairedDifference(-2.5, 9, (-3.25, -1), 0, (-2.5,)), "tokens") == \
        "-2.5 tokens [-3.2, -1.0]"


def test_a_running_mean_shrinks_at_the_ends() -> None:
    assert running_mean([1.0, 2.0, 6.0, 4.0], 3) == [1.5, 3.0, 4.0, 5.0]
    assert running_mean([1.0, 2.0], 1) == [1.0, 2.0]


@pytest.mark.parametrize(("count", "window"), [(5, 1), (29, 1), (30, 1), (40, 3), (100, 5)])
def test_the_window_is_odd_and_about_a_twentieth(count: int, window: int) -> None:
    assert smoothing_window(count) == window


def test_interval_bars_reach_from_low_to_high() -> None:
    chart = interval_chart("c", "t", "n", ["2 people"], [("rl", 2, {"2 people": ACCURACY})])
    assert chart is not None
    (points,) = chart.data
    assert points["y"] == [0.5]
    assert points["error_y"]["array"] == [pytest.approx(0.3)]
    assert points["error_y"]["arrayminus"] == [0.25]
    assert points["text"] == ["2 people: 50.0% [25.0, 80.0], n = 4"]


def test_an_unjudged_figure_is_no_point() -> None:
    unjudged = Figure(value=None, n=0, ci95=None, unjudged=4)
    assert interval_chart("c", "t", "n", ["a"], [("rl", 2, {"a": unjudged})]) is None


def test_lines_without_points_are_left_out() -> None:
    assert line_chart("c", "t", "n", [Line("a", series(), 1)], Axes()) is None
    chart = line_chart("c", "t", "n", [Line("a", series(), 1), Line("b", series(1, 2), 2)], Axes())
    assert chart is not None
    assert [trace["name"] for trace in chart.data] == ["b"]
    assert chart.data[0]["line"]["dash"] == "solid"


def test_series_keep_training_and_evaluation_apart() -> None:
    data = run_data([
        {"rung": "rl", "kind": "rl", "step": 0, "metrics": {"accuracy": 0.1}},
        {"rung": "rl", "kind": "eval", "step": 0, "metrics": {"accuracy": 0.9}},
        {"rung": "other", "kind": "rl", "step": 0, "metrics": {"accuracy": 0.5}}], "rl")
    assert data.series("rl", "accuracy") == Series([0], [0.1])
    assert data.series("rl", "accuracy", evaluation=True) == Series([0], [0.9])


def test_speed_is_all_tokens_over_all_seconds() -> None:
    times = [{"seconds": {"update": 1.0}, "tokens_per_second": {"update": 100.0}},
             {"seconds": {"update": 3.0}, "tokens_per_second": {"update": 200.0}}]
    data = run_data([{"rung": "rl", "kind": "rl", "step": i, "metrics": {}, "time": time}
                     for i, time in enumerate(times)], "rl")
    assert mean_speeds(data, "rl") == {"update": 175.0}  # 700 tokens in 4 s, not the mean 150
    assert phase_seconds(data, "rl") == {"update": 4.0}


def test_abstentions_add_up_over_steps() -> None:
    records = [{"rung": "rl", "kind": kind, "step": i, "metrics": {"abstentions/judge": 2.0}}
               for i, kind in enumerate(("rl", "rl", "eval"))]
    assert totals(run_data(records, "rl"), "abstentions/") == {"rl": {"abstentions/judge": 4.0}}


def test_shown_prompts_take_turns_and_need_an_answer_of_both_rungs() -> None:
    data = run_data([], "sft", "rl")
    rows = [row(f"p{i}", people=2 + i % 2) for i in range(8)]
    data.__dict__["evaluations"] = {("sft", "test", 0.0): rows[:6], ("rl", "test", 0.0): rows}
    shown = shown_prompts(data, data.climbed, 4)
    # Digests: two people p0 169b, p2 3946, p4 ab71; three people p3 43bb, p5 536c, p1 f645;
    # p6 and p7 have no answer of the first rung.
    assert [s.prompt["prompt_id"] for s in shown] == ["p0", "p3", "p2", "p5"]


def test_the_choice_of_shown_prompts_ignores_the_answers() -> None:
    chosen = []
    for verdict_class in ("correct", "wrong"):
        data = run_data([], "sft", "rl")
        rows = [row(f"p{i}", verdict_class=verdict_class) for i in range(9)]
        data.__dict__["evaluations"] = {(name, "test", 0.0): rows for name in ("sft", "rl")}
        chosen.append([s.prompt["prompt_id"] for s in shown_prompts(data, data.climbed, 3)])
    assert chosen[0] == chosen[1]


def test_the_gap_compares_accuracy_and_reward_at_equal_temperature(tmp_path: Path) -> None:
    data = replace(run_data([], "rl"), run=RunDir(tmp_path))
    (tmp_path / "traces").mkdir()
    for step in range(20):  # the last tenth: steps 18 and 19
        write_rows(tmp_path / "traces" / f"rl-train-step{step:06d}.parquet",
                   [row("p", temperature=1.0, reward_total=3.0 if step > 17 else -3.0,
                        verdict_class="correct" if step > 17 else "wrong"),
                    row("q", temperature=1.0, reward_total=None, status="error_sampler")])
    data.__dict__["evaluations"] = {
        ("rl", "test", 0.0): [row("t", reward_total=3.0)],
        ("rl", "test", 1.0): [row("t", reward_total=3.0),
                              row("u", verdict_class="wrong", reward_total=-0.5)]}
    (gap,) = gaps(data, data.rungs[0])
    assert gap.train == (1.0, 3.0, 2)
    assert gap.held_out == (0.5, 1.25, 2)
    assert (gap.points, gap.reward, gap.temperature) == (50.0, 1.75, 1.0)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = ("reference", "meta", "verdicts", "parts")
    texts = [{**r, **{name: json.dumps(r.get(name)) for name in columns}} for r in rows]
    pq.write_table(pa.Table.from_pylist(texts), path)


def test_items_of_rows_equal_items_of_trajectories() -> None:
    item = item_of_row(row("p", verdict_class="bad_format"))
    assert (item.correct, item.format, item.people, item.cluster) == (0.0, 0.0, 2, "p")
    failed = item_of_row(row("p", status="error_sampler"))
    assert (failed.correct, failed.tokens, failed.response) == (None, None, "")
    assert item_of_row(row("p", status="truncated_length")).truncated == 1.0
