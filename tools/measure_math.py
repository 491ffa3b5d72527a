r"""Measure the math verifier on public data with known verdicts.

    python tools/measure_math.py DATA

``DATA/gsm8k/example_model_solutions.jsonl``: solutions of four systems to the GSM8K test set with
``is_correct`` labels; the final answer is what follows the last "A:" (none: no answer).
``DATA/math500/math500.json``: every gold answer, said through ``\boxed{}``, must be right, and be
wrong for every other question whose gold answer is a different text (a sample of pairs; what comes
out equal is printed for the eye).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from safeladder.types import Verdict
from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.math import MathAnswer

MARKER = "A:"


def judge(answer: str, gold: str) -> Verdict:
    """The verdict on a response that ends with this text."""
    return MathAnswer(isolate=None).verify(trajectory_of(f"<think>so</think>{answer}", gold))


def final_answer(solution: str) -> str:
    """What follows the last marker; empty without one."""
    before, marker, answer = solution.rpartition(MARKER)
    return answer.strip() if marker and (not before or before.endswith("\n")) else ""


def gsm8k(path: Path, show: int) -> None:
    """Agreement with the labels."""
    agree: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        gold = final_answer(row["ground_truth"])
        for system, solution in row.items():
            if not isinstance(solution, dict):
                continue
            verdict = judge(final_answer(solution["solution"]), gold)
            same = (verdict.score == 1.0) == solution["is_correct"]
            agree[system] += same
            classes[str(verdict.verdict_class)] += 1
            agree["total"] += 1
            if not same and show:
                show -= 1
                print(f"  {system}: gold {gold}, {solution['is_correct']}, {verdict}: "
                      f"{solution['solution'][-120:]!r}")
    total = agree.pop("total")
    print(f"GSM8K: {agree.total()} of {total} labels; {dict(classes)}; by system {dict(agree)}")


def math500(path: Path, pairs: int) -> None:
    """Gold answers against themselves and against each other."""
    golds = [row["final_answer"] for row in json.loads(path.read_text(encoding="utf-8"))]
    right = sum(judge(f"\\boxed{{{gold}}}", gold).score == 1.0 for gold in golds)
    print(f"MATH-500: {right} of {len(golds)} gold answers are right through \\boxed{{}}")
    texts = list(dict.fromkeys(golds))
    count, equal = 0, []
    for shift in range(1, len(texts)):
        for i, gold in enumerate(texts):
            if count >= pairs:
                break
            count += 1
            other = texts[(i + shift) % len(texts)]
            if judge(f"\\boxed{{{other}}}", gold).score:
                equal.append(f"{gold} = {other}")
    print(f"MATH-500: {len(equal)} of {count} pairs of different texts are equal: {equal}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", type=int, default=10, help="print so many disagreements")
    parser.add_argument("--pairs", type=int, default=5_000, help="pairs of MATH-500 answers")
    arguments = parser.parse_args()
    for measure, name, argument in (
            (gsm8k, "gsm8k/example_model_solutions.jsonl", arguments.show),
            (math500, "math500/math500.json", arguments.pairs)):
        started = time.perf_counter()
        measure(arguments.folder / name, argument)
        print(f"  {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
