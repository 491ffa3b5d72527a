"""Measure the choice verifier on raw MMMU responses, beside the official parser's predictions.

    python tools/measure_choice.py DATA/mmmu

The folder holds ``answer_dict_val.json`` (the key), ``*_total_val_output.json`` (the letters that
the official parser found, its random draws included) and ``*_raw/*.json`` (responses with their
options). Only multiple-choice questions count. Where the official rules find no option (a letter
in brackets, a letter between spaces, an option's text in an answer of more than five words) they
draw one at random; those questions are told apart by applying the rules here.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.choice import Choice


def questions(folder: Path) -> Iterator[dict[str, Any]]:
    """The multiple-choice rows of all subjects."""
    for path in sorted(folder.glob("*_raw/*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["question_type"] == "multiple-choice":
                yield row


def drawn(row: dict[str, Any]) -> bool:
    """Whether the official rules find nothing in the response, so that they draw at random."""
    said = f" {row['response'].strip(''',.!?;:' ''')} "
    letters = row["all_choices"]
    if any(f"({letter})" in said or f" {letter} " in said for letter in letters):
        return False
    long = len(said.split()) > 5
    return not (long and any(t.lower() in said.lower() for t in row["index2ans"].values()))


def rate(count: float, total: int) -> str:
    """A share as text."""
    return f"{count:g} of {total} ({100 * count / total:.1f}%)" if total else "none"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", type=int, default=0, help="print so many differences")
    arguments = parser.parse_args()
    key = json.loads((arguments.folder / "answer_dict_val.json").read_text())
    official: dict[str, str] = {}
    for path in arguments.folder.glob("*_total_val_output.json"):
        official |= json.loads(path.read_text())
    counts: Counter[str] = Counter()
    chance = 0.0
    for row in questions(arguments.folder):
        gold = key[row["id"]]["ground_truth"]
        reference = {"answer": gold, "options": row["index2ans"]}
        verdict = Choice().verify(trajectory_of(row["response"], reference))
        theirs = "drawn" if drawn(row) else "right" if official[row["id"]] == gold else "wrong"
        counts["all"] += 1
        counts[str(verdict.verdict_class)] += 1
        counts[f"official {theirs}"] += 1
        counts[f"{theirs}, {verdict.verdict_class}"] += 1
        if theirs == "drawn":
            counts["drawn right"] += official[row["id"]] == gold
            chance += 1 / len(row["all_choices"])
        elif (theirs == "right") != (verdict.verdict_class == "correct") and arguments.show:
            arguments.show -= 1
            print(f"--- {row['id']} gold {gold}, official {official[row['id']]}, "
                  f"{verdict.verdict_class} ({verdict.reason})\n{row['index2ans']}\n"
                  f"{row['response'][-500:]}")
    report(counts, chance)


def report(counts: Counter[str], chance: float) -> None:
    """The table."""
    total, draws = counts["all"], counts["official drawn"]
    read = total - counts["unparsable"]
    found = total - draws
    print(f"multiple-choice questions: {total}")
    print(f"choice verifier: parsed {rate(read, total)}, correct {rate(counts['correct'], total)}, "
          f"correct of the parsed {rate(counts['correct'], read)}")
    print(f"official parser: found {rate(found, total)}, drawn at random {rate(draws, total)}")
    with_draws = counts["official right"] + counts["drawn right"]
    print(f"  correct with its draws {rate(with_draws, total)}"
          f", without {rate(counts['official right'], total)}")
    print(f"  the draws were right in {rate(counts['drawn right'], draws)}, expected {chance:.1f}")
    print("official x verifier:")
    for theirs in ("right", "wrong", "drawn"):
        cells = ", ".join(f"{ours} {counts[f'{theirs}, {ours}']}"
                          for ours in ("correct", "wrong", "unparsable"))
        print(f"  {theirs}: {cells}")


if __name__ == "__main__":
    main()
