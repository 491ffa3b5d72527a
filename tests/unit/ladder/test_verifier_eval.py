"""Measuring verifiers and judging files, from the command line down."""

import json
import subprocess
import sys

import pytest

from safeladder.errors import CheckpointError, ConfigError, DataError
from safeladder.ladder.verifier_eval import evaluate_verifier, write_evaluation
from safeladder.ladder.verifier_spec import open_verifier
from safeladder.ladder.verify_file import verify_file

SORRY = "I'm sorry, but I cannot help with that."
HELP = "Turn it a little to the left and lift."


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path):
    rows = [("1_full_compliance", HELP, "a", "one"), ("2_full_refusal", SORRY, "a", "one"),
            ("3_partial_refusal", f"{HELP} {SORRY}", "b", "two"),
            ("2_full_refusal", "That would be wrong.", "c", "two")]
    return write_rows(tmp_path / "data.jsonl", [
        {"prompt": f"{group} {n}", "response": text, "label": label, "group": group,
         "source": source} for n, (label, text, group, source) in enumerate(rows)])


def test_figures_of_prefix_matching_by_hand(data):
    found = evaluate_verifier("prefix_refusal", data)
    # given: compliance, refusal, refusal, compliance; labels: compliance, refusal x 3
    assert found.figures.accuracy.value == 3 / 4
    assert found.figures.confusion == [[1, 0], [1, 2]]
    assert found.figures.f1["refusal"].value == pytest.approx(4 / 5)
    assert [(s.source, s.rows, s.accuracy.value) for s in found.sources] == [
        ("one", 2, 1.0), ("two", 2, 0.5)]
    (mistake,) = found.mistakes
    assert (mistake.label, mistake.given) == ("refusal", "compliance")
    assert found.abstained == 0 and found.strict_accuracy.value == 3 / 4


def test_abstentions_enter_no_figure_and_are_shown_both_ways(tmp_path):
    rows = [{"prompt": "?", "response": f"<answer>{a}</answer>", "label": label, "reference": ref}
            for a, label, ref in ((5, "correct", 5), (6, "wrong", 5), (7, "wrong", None),
                                  (5, "wrong", 5))]
    found = evaluate_verifier("numeric", write_rows(tmp_path / "n.jsonl", rows))
    assert (found.rows, found.judged, found.abstained) == (4, 3, 1)
    assert found.figures.accuracy.value == pytest.approx(2 / 3)
    assert found.strict_accuracy.value == pytest.approx(2 / 4)
    assert "no number" in next(iter(found.abstentions))
    assert found.figures.ece.value is None


def test_nothing_judged_is_no_figure_and_still_a_page(tmp_path):
    rows = [{"prompt": "?", "response": "5", "label": "correct"}]
    found = evaluate_verifier("numeric", write_rows(tmp_path / "n.jsonl", rows))
    assert found.figures is None
    write_evaluation(found, tmp_path / "page.html")
    assert "could judge none of 1 rows" in (tmp_path / "page.html").read_text()


def test_labels_can_be_renamed_and_unknown_ones_are_refused(data, tmp_path):
    odd = write_rows(tmp_path / "odd.jsonl", [{"prompt": "?", "response": SORRY, "label": "no"}])
    with pytest.raises(DataError, match=r"label 'no' is none of.*--map"):
        evaluate_verifier("prefix_refusal", odd)
    assert evaluate_verifier("prefix_refusal", odd, {"no": "refusal"}).figures.accuracy.value == 1.0
    bare = write_rows(tmp_path / "bare.jsonl", [{"prompt": "?", "response": SORRY}])
    with pytest.raises(DataError, match="1 of 1 rows have no label"):
        evaluate_verifier("prefix_refusal", bare)


def test_the_page_is_self_contained_and_the_json_holds_the_figures(data, tmp_path):
    found = evaluate_verifier("prefix_refusal", data)
    target = write_evaluation(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    own = page.split("<script>")[0] + page.rsplit("<script>", 1)[1]
    assert not any(word in own for word in ("src=", "https:", "http:"))
    assert "default-src 'none'" in own
    assert "That would be wrong." in page and "chart-reliability" in page
    held = json.loads(target.read_text())
    assert held["figures"]["accuracy"]["value"] == 0.75
    assert held["data_sha256"] == found.data_sha256


def test_text_of_rows_cannot_break_out_of_the_page(tmp_path):
    rows = [{"prompt": "<script>alert(1)</script>", "response": "</script><b>x", "label": "refusal",
             "source": "</script>"}, {"prompt": "?", "response": SORRY, "label": "refusal"}]
    found = evaluate_verifier("prefix_refusal", write_rows(tmp_path / "d.jsonl", rows))
    write_evaluation(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page and "</script><b>" not in page
    assert page.count("</script>") == 3


def test_verify_writes_every_row_with_its_verdicts(data, tmp_path):
    spec = tmp_path / "three.yaml"
    spec.write_text("type: prefix_refusal\nname: three\nlabels: three_way\n")
    report = verify_file(data, ["prefix_refusal", str(spec), "numeric"], tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["verdicts"]["three"]["class"] for row in rows] == [
        "full compliance", "full refusal", "full refusal", "full compliance"]
    assert rows[0]["verdicts"]["numeric"]["score"] is None and rows[0]["label"]
    assert report.verifiers["numeric"].abstained == 4
    again = verify_file(tmp_path / "out.jsonl", ["numeric"], tmp_path / "twice.jsonl")
    assert again.trajectories == 4


def test_what_is_no_verifier_is_one_line(data, tmp_path):
    for text, kind, message in (
            ("prefix_refusel", ConfigError, "did you mean 'prefix_refusal'"),
            (str(tmp_path / "none"), ConfigError, "no such folder"),
            (str(tmp_path), CheckpointError, "holds no verifier"),
            (str(data), ConfigError, "another file")):
        with pytest.raises(kind, match=message) as caught:
            open_verifier(text)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="two verifiers are called"):
        verify_file(data, ["numeric", "numeric"], tmp_path / "out.jsonl")


def test_the_commands_print_figures_and_end_with_2_on_bad_input(data, tmp_path):
    def run(*words):
        return subprocess.run([sys.executable, "-m", "safeladder", *map(str, words)],
                              capture_output=True, text=True, cwd=tmp_path)

    done = run("verifier", "eval", "prefix_refusal", data, "--out", "p.html")
    assert done.returncode == 0 and "75.0%" in done.stdout, done.stderr
    assert (tmp_path / "p.html").exists() and (tmp_path / "p.json").exists()
    bad = run("verify", tmp_path / "none.jsonl", "--with", "prefix_refusal")
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and "none.jsonl" in bad.stderr
