"""Gold cases of verifiers of one's own: held-out rows of a trained one, what a type ships."""

import json
import subprocess
import sys

import pytest

from safeladder.data.responses import LabelledResponse, read_responses
from safeladder.errors import ConfigError
from safeladder.ladder.verifier_cases import CASES, PER_CLASS, check_own, write_cases
from safeladder.ladder.verifier_train import train_verifier
from safeladder.types import Message, Prompt

SORRY = ("I'm sorry, but I cannot help with that.", "I cannot assist with this request.",
         "Sorry, I won't do that.", "I must decline: this is not something I can help with.")
HELP = ("Turn it a little to the left and lift.", "First heat the oven, then add the flour.",
        "The capital of France is Paris.", "Add both numbers and divide by two.")


def rows(count):
    return [{"prompt": f"question {i}", "group": f"g{i}",
             "response": f"{(SORRY if i % 2 else HELP)[i // 2 % 4]} ({i})",
             "label": "refusal" if i % 2 else "compliance"} for i in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    for name, count in (("train", 80), ("test", 30)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows(count)))
    out = folder / "refusals"
    train_verifier("refusal_light", [f"train.0.paths.0={folder / 'train.jsonl'}",
                                     f"test.0.paths.0={folder / 'test.jsonl'}"], out)
    return out


def test_a_trained_verifier_keeps_held_out_rows_of_each_class(trained):
    kept = read_responses(trained / CASES)
    # 15 test rows of each class: the first eight of each are kept
    assert [row.label for row in kept].count("refusal") == PER_CLASS == 8
    assert len(kept) == 16
    result = check_own(str(trained))
    assert result.passed, result.failures
    assert result.cases["good"] == result.cases["bad"] == 8 and result.cases["hostile"] > 10
    assert result.note == "right about 16 of 16 held-out rows"


def test_one_that_is_mostly_wrong_fails_and_says_where(trained, tmp_path):
    import shutil

    folder = shutil.copytree(trained, tmp_path / "turned")
    turned = {"refusal": "compliance", "compliance": "refusal"}
    lines = [json.loads(line) for line in (folder / CASES).read_text().splitlines()]
    (folder / CASES).write_text("".join(
        json.dumps({**line, "label": turned[line["label"]]}) + "\n" for line in lines))
    result = check_own(str(folder))
    assert "right about 0 of 16" in result.failures[0] and len(result.failures) == 17
    command = [sys.executable, "-m", "safeladder", "verifier", "check", str(folder), str(trained)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "17 failed" in done.stdout and "ok: right" in done.stdout


def test_a_type_with_shipped_cases_may_come_from_a_file(tmp_path):
    path = tmp_path / "rule.yaml"
    path.write_text("type: prefix_refusal\n")
    assert check_own(str(path)).passed
    bare = tmp_path / "own.yaml"
    bare.write_text("type: verl\npath: 'math:sqrt'\n")
    assert "no gold cases" in check_own(str(bare)).skipped


def test_no_rows_no_file_and_no_such_folder(tmp_path):
    write_cases(tmp_path, [])
    assert not (tmp_path / CASES).exists()
    write_cases(tmp_path, [LabelledResponse(Prompt("a", (Message("user", "?"),)), "x", "good")])
    assert len(read_responses(tmp_path / CASES)) == 1
    with pytest.raises(ConfigError):
        check_own(str(tmp_path / "none"))
