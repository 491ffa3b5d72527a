import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from safeladder.errors import CheckpointError
from safeladder.eval.statistics import paired_difference
from safeladder.ladder.report import write_report
from safeladder.ladder.report_data import evaluation_items, load_run
from safeladder.ladder.report_tables import comparison_tables, headline, main_comparisons
from safeladder.ladder.summary import read_summary


@pytest.fixture(scope="module")
def page(finished_run: Path) -> str:
    return write_report(finished_run).read_text(encoding="utf-8")


@pytest.fixture
def folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "first_climb-1"))


@pytest.fixture
def unfinished(folder: Path) -> Path:
    """A copy whose last climbed rung never ended."""
    (folder / "summary.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("logic_rl", "more_sft", "shuffled_rl"):
        manifest["rungs"][name] = {"status": "running"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for path in folder.glob("traces/*_rl-test*"):
        path.unlink()
    return folder


def own_part(page: str) -> str:
    """The page without the chart library."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)


class Structure(HTMLParser):
    """Ids, links, and whether every element is closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [v for v in [values.get("id")] if v]
        self.references += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def structure(page: str) -> Structure:
    parsed = Structure()
    parsed.feed(page)
    parsed.close()
    return parsed


def charts(page: str) -> dict[str, Any]:
    found = re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)
    assert found
    charts: dict[str, Any] = json.loads(found[1])
    return charts


def test_the_page_stands_alone(page: str) -> None:
    parsed = structure(own_part(page))
    assert parsed.open == []
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1


def test_the_page_names_no_folder_of_this_machine(finished_run: Path, page: str) -> None:
    assert str(finished_run.parent) not in page


def test_every_chart_has_a_place_and_points(page: str) -> None:
    drawn = charts(page)
    places = {name for name in structure(own_part(page)).ids if name.startswith("chart-")}
    assert {f"chart-{name}" for name in drawn} == places
    assert all(trace["y"] for chart in drawn.values() for trace in chart["data"])
    assert {"accuracy", "accuracy_t1", "accuracy_unseen_forms", "accuracy_t1_unseen_forms",
            "loss-base", "loss-cot_sft", "learning-logic_rl", "reward-mean", "parts-logic_rl",
            "response-mean_tokens", "entropy", "kl_old", "clip_fraction", "grad_norm",
            "mismatch_kl", "behaviours", "behaviours-logic_rl", "speed-logic_rl",
            "phases"} <= drawn.keys()


def test_the_headline_has_the_figures_of_the_summary(finished_run: Path, page: str) -> None:
    summary = read_summary(finished_run / "summary.json")
    before, after = (rung.eval["kk2_accuracy"] for rung in summary.rungs[1:])
    assert after.value is not None and before.value is not None and after.ci95 is not None
    sentence = re.search(r'<p class="headline">(.*?)</p>', page)
    assert sentence
    text = sentence[1].replace("\u00a0", " ")
    assert text.startswith("From cot_sft to logic_rl, right answers go from ")
    assert f"to {100 * after.value:.1f}% [{100 * after.ci95[0]:.1f}, {100 * after.ci95[1]:.1f}] " \
           "on 12 two-person puzzles" in text
    assert f"({100 * (after.value - before.value):+.1f} points" in text


def test_a_disclosure_stands_in_the_same_sentence_as_the_figures(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    start = next(rung for rung in content["rungs"] if rung["name"] == "cot_sft")
    after = next(rung for rung in content["rungs"] if rung["name"] == "logic_rl")
    start["disclosure"] = after["disclosure"] = "its teacher misreads implies"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    data = load_run(folder)
    sentence = headline(data, main_comparisons(data)).split(". Held-out")[0]
    assert "cot_sft and logic_rl: its teacher misreads implies" in sentence


def test_all_figures_are_in_the_tables_with_their_numbers(finished_run: Path, page: str) -> None:
    summary = read_summary(finished_run / "summary.json")
    for rung in summary.rungs:
        figure = rung.eval["tokens_per_answer"]
        assert figure.value is not None
        assert f"{figure.value:.1f} [" in page
    for name in ("format", "tokens_per_answer", "verification_rate", "reflection_rate"):
        assert f"<code>{name}</code>" in page
    assert "<code>_t1_unseen_forms</code>" in page
    assert "n 24" in page


def test_five_prompts_are_shown_before_and_after(page: str) -> None:
    articles = re.findall(r'<article class="puzzle">(.*?)</article>', page, re.DOTALL)
    assert len(articles) == 5
    for article in articles:
        assert article.index("<b>cot_sft</b>") < article.index("<b>logic_rl</b>")
        assert article.count('class="mark"') == 2
        assert "<details><summary>reasoning" in article


def test_comparisons_with_every_baseline_are_there(page: str) -> None:
    for title in ("logic_rl against cot_sft", "logic_rl against more_sft",
                  "logic_rl against shuffled_rl"):
        assert f"<caption>{title}</caption>" in page


def test_a_baseline_is_compared_with_the_rung_that_it_names(finished_run: Path) -> None:
    data = load_run(finished_run)
    rungs = [rung | {"compare_with": "cot_sft"} if rung["name"] == "more_sft" else rung
             for rung in data.recipe["rungs"]]
    tables = comparison_tables(replace(data, recipe={**data.recipe, "rungs": rungs}), [])
    assert [(table["before"], table["after"]) for table in tables] == [
        ("more_sft", "cot_sft"), ("shuffled_rl", "logic_rl")]


def test_evaluations_of_two_rungs_can_be_paired_from_their_files(finished_run: Path) -> None:
    before, after = (evaluation_items(finished_run, name) for name in ("cot_sft", "logic_rl"))
    result = paired_difference([after], [before])
    assert (result.n, result.unjudged, len(after)) == (24, 0, 24)
    with pytest.raises(CheckpointError, match=r"logic_rl-test-t0\.3\.parquet"):
        evaluation_items(finished_run, "logic_rl", temperature=0.3)


def test_abstentions_and_how_to_reproduce_are_there(page: str) -> None:
    assert "training of logic_rl" in page
    assert "safeladder climb recipe.yaml" in page
    assert "git_revision" in page and "name: first_climb" in page


def edit_traces(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for path in folder.glob("traces/logic_rl-test-t0.parquet"):
        table = pq.read_table(path)
        rows = table.to_pylist()
        for row in rows:
            change(row)
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)


def test_what_a_model_writes_cannot_become_markup(folder: Path) -> None:

    def hostile(row: dict[str, Any]) -> None:
        row["response"] = "<think></script><script>alert(1)</script></think><b>{{ name }}"

    edit_traces(folder, hostile)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;{{ name }}" in page


def test_what_a_chart_is_labelled_with_cannot_end_the_script(folder: Path) -> None:
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"rung": "logic_rl", "kind": "rl", "step": 8,
                               "metrics": {"reward/part/</script><b>": 1.0}}) + "\n")
    page = write_report(folder).read_text(encoding="utf-8")
    names = {trace["name"] for trace in charts(page)["parts-logic_rl"]["data"]}
    assert names == {"format", "answer", "</script><b>"}


def test_unjudged_answers_are_marked_and_leave_the_comparison(folder: Path) -> None:

    def unjudged(row: dict[str, Any]) -> None:
        row["verdicts"] = json.dumps({"logic_rl": {
            "score": None, "verdict_class": None, "parts": {}, "error": "time limit"}})

    edit_traces(folder, unjudged)
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count("\u2205 not judged") == 5
    data = load_run(folder)
    greedy = [c for c in main_comparisons(data) if c.split == "test" and not c.temperature]
    assert [(c.difference.n, c.difference.unjudged) for c in greedy] == [(0, 12), (0, 12)]


def test_an_unfinished_run_shows_what_there_is(unfinished: Path) -> None:
    folder = unfinished
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"rung": "logic_rl", "ki')
    page = write_report(folder).read_text(encoding="utf-8")
    assert "This climb is not finished" in page
    assert "From base to cot_sft" in page
    assert structure(own_part(page)).open == []


def test_a_run_that_has_only_begun_gets_a_page_too(unfinished: Path) -> None:
    folder = unfinished
    (folder / "metrics.jsonl").unlink()
    for path in folder.glob("traces/*.parquet"):
        path.unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "rungs": {}}))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "No rung has been evaluated yet." in page and "Nothing was recorded." in page


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        write_report(tmp_path)


def test_a_broken_trace_file_is_named(unfinished: Path) -> None:
    folder = unfinished
    (folder / "traces" / "cot_sft-test-t0.parquet").write_bytes(b"not parquet")
    with pytest.raises(CheckpointError, match=r"cot_sft-test-t0\.parquet: no trace file"):
        write_report(folder)


def test_a_broken_metrics_line_is_named(unfinished: Path) -> None:
    folder = unfinished
    path = folder / "metrics.jsonl"
    path.write_text("oops\n" + path.read_text())
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 1: not JSON"):
        write_report(folder)
