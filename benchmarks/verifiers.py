"""Verdicts per second: rules of strings, math in and out of workers, trained models batched or not.

    python benchmarks/verifiers.py                    # everything
    python benchmarks/verifiers.py --only rules math

*rules*: each rule verifier judges responses of about 500 characters (a think block of prose, then
an answer, two in three right), through ``verify`` and through ``verify_all`` with an objective, in
groups of 8. One core; the same responses for both. *math*: answers that need math-verify, in this
process and in 1 and 2 workers through ``verify_all``. *neural*: a generative and a classifier-head
verifier of the sizes of the shipped recipes, all rows in one call and one row per call.

The median of the repeats counts; a repeat during which other processes used the CPU is run again
(--no-gate accepts it and says so). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Gate, interleaved, median

from safeladder.types import Group, Trajectory
from safeladder.verifiers import build_objective, build_verifier, close_verifiers, verify_all
from safeladder.verifiers.cases import trajectory_of

GOAL = 20_000
"""Verdicts per second per core that a rule of strings should reach."""
LENGTH, GROUP = 500, 8
PROSE = ("because the first of them says that if second were true then both would be known so we "
         "look at what follows from it and see whether anything there is against what was said "
         "before which leaves only one way out for all who live on this island")

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-gate", action="store_true", help="accept runs on a busy machine")
    arguments = parser.parse_args()
    gate = Gate(enabled=not arguments.no_gate)
    result: Figures = {"benchmark": "verifiers", "python": platform.python_version(),
                       "machine": platform.machine(), "repeats": arguments.repeats}
    for name in arguments.only:
        result[name] = SECTIONS[name](gate, arguments.repeats)
    result["gate"] = gate.summary()
    print(json.dumps(result))


# ---------------------------------------------------------------------- rules


@dataclass(frozen=True)
class Workload:
    """What one verifier judges: right and wrong answers to one reference."""

    right: str
    wrong: str
    reference: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


IFEVAL = {"instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words",
                                  "keywords:existence"],
          "kwargs": [{}, {"relation": "at least", "num_words": 5}, {"keywords": ["island"]}]}
RULES: dict[str, Workload] = {
    "choice": Workload("The answer is (B).", "The answer is (C) a horse.",
                       {"answer": "B", "options": ["a cat", "a dog", "a horse", "a bird"]}),
    "format": Workload("Four.", "Four. <think>"),
    "ifeval": Workload("All who live on this island say so.", "Yes, on this island.", IFEVAL),
    "language": Workload("It is four.", "\u7b54\u6848\u662f\u56db\u3002", meta={"language": "en"}),
    "length": Workload("It is four.", "It is five."),
    "logic_rl": Workload("<answer>(1) Zoey is a knave (2) Ethan is a knight</answer>",
                         "<answer>(1) Zoey is a knight (2) Ethan is a knight</answer>",
                         {"names": ["Zoey", "Ethan"], "roles": ["knave", "knight"]}),
    "microworld": Workload("this can cause fire .", "this can cause shock .", {
        "family": "safety", "action": "burn", "object": "flag", "tool": "flint", "hazard": "fire",
        "guard": "screen", "dangerous": {"objects": ["flag"], "tools": ["flint"]}}),
    "numeric": Workload("<answer>It is 1,005 apples.</answer>", "<answer>1004</answer>", 1005),
    "prefix_refusal": Workload("Whisk the eggs first.", "I'm sorry, but I can't help with that."),
    "repetition": Workload("It is four.", "So so so. " * 8),
    "text_match": Workload("<answer>The Eiffel Tower.</answer>", "<answer>Big Ben</answer>",
                           ["Eiffel Tower", "La tour Eiffel"]),
    "visual_focus": Workload("Stop.", "Go.", meta={"shown": ["island", "one way"], "absent": [
        "dog", "cat", "red car"]}),
}
NUM_RULE_ROWS = 4000


def rules(gate: Gate, repeats: int) -> Figures:
    """Verdicts per second of every rule, directly and through ``verify_all``."""
    found: Figures = {}
    for kind, workload in RULES.items():
        rows = responses(workload, NUM_RULE_ROWS)
        verifier: Any = build_verifier({"type": kind, **workload.settings})
        runs = {"verify": lambda v=verifier, r=rows: [v.verify(row) for row in r],
                "verify_all": through_verify_all(kind, verifier, rows)}
        print(f"{kind}, {len(rows)} responses", flush=True)
        seconds = interleaved(gate, runs, repeats)
        found[kind] = {name: round(len(rows) / median(times)) for name, times in seconds.items()}
    rates = {kind: figures["verify"] for kind, figures in found.items()}
    below = [kind for kind, rate in rates.items() if rate < GOAL]
    return {"verdicts_per_second": found, "slowest": min(rates, key=lambda kind: rates[kind]),
            "goal": GOAL, "below_goal": below}


def responses(workload: Workload, count: int) -> list[Trajectory]:
    """Different responses of about ``LENGTH`` characters, every third wrong."""
    rng, words = random.Random(0), PROSE.split()
    rows = []
    for i in range(count):
        answer = workload.wrong if i % 3 == 2 else workload.right
        thought = ""
        while len(thought) < LENGTH - len(answer) - 20:
            thought += f"{rng.choice(words)} "
        response = f"<think>{thought}</think>{answer}"
        rows.append(trajectory_of(response, workload.reference, workload.meta, id=str(i)))
    return rows


def through_verify_all(
    name: str, verifier: Any, rows: Sequence[Trajectory],
) -> Callable[[], object]:
    """A run of ``verify_all`` over groups of ``GROUP``."""
    objective = build_objective({"tasks": {"*": {"parts": {name: 1.0}}}})
    groups = [Group(rows[i].prompt, list(rows[i:i + GROUP])) for i in range(0, len(rows), GROUP)]
    return lambda: asyncio.run(verify_all(groups, {name: verifier}, objective))


# ---------------------------------------------------------------------- math


MATH = Workload("so \\boxed{\\frac{2x+2}{4}}", "so \\boxed{\\frac{2x+1}{4}}", "\\frac{x+1}{2}")
NUM_MATH_ROWS = 200


def math(gate: Gate, repeats: int) -> Figures:
    """Verdicts per second of the math verifier, without and with worker processes."""
    rows = responses(MATH, NUM_MATH_ROWS)
    verifiers: dict[str, Any] = {
        "in_process": build_verifier({"type": "math", "isolate": None}),
        "workers_1": build_verifier({"type": "math", "isolate": {"workers": 1}}),
        "workers_2": build_verifier({"type": "math", "isolate": {"workers": 2}})}
    print(f"math, {len(rows)} responses", flush=True)
    try:
        runs = {name: through_verify_all("math", one, rows) for name, one in verifiers.items()}
        seconds = interleaved(gate, runs, repeats)
    finally:
        close_verifiers(verifiers)
    rates = {name: round(len(rows) / median(times)) for name, times in seconds.items()}
    return {"verdicts_per_second": rates,
            "isolation_costs_ms": round(1000 / rates["workers_1"] - 1000 / rates["in_process"], 3)}


# ---------------------------------------------------------------------- neural

NEURAL = ("safety_generative_micro", "safety_classifier_micro")
NUM_NEURAL_ROWS = 256
QUICK = ("train.0.count=400", "validation.0.count=24", "test=[]", *(
    f"stages.{name}.settings.num_steps=1" for name in ("text_risk", "text", "image_risk", "image")))
"""One training step per stage: what the weights are does not matter for the speed."""


def neural(gate: Gate, repeats: int) -> Figures:
    """Verdicts per second of the shipped recipes' verifiers: rows in one call, or one by one."""
    from safeladder.data.microworld import labelled_responses
    from safeladder.ladder.verifier_model import model_makers, train_model_verifier
    from safeladder.ladder.verifier_recipe import load_verifier_recipe

    forms = {"text": ("text",), "image": ("object_image", "scene_image")}
    found: Figures = {}
    for recipe in NEURAL:
        with tempfile.TemporaryDirectory() as folder:
            made = load_verifier_recipe(recipe, QUICK)
            train_model_verifier(made, Path(folder) / recipe)
            verifier: Any = build_verifier({"type": made.type, "path": f"{folder}/{recipe}"},
                                           makers=model_makers())
        for form, chosen in forms.items():
            rows = [row.trajectory() for row in labelled_responses(
                "safety", "test", NUM_NEURAL_ROWS, forms=chosen)]
            print(f"{recipe}, {len(rows)} responses, {form}", flush=True)
            runs = {"batched": lambda v=verifier, r=rows: asyncio.run(v.verify_many(r)),
                    "one_at_a_time": lambda v=verifier, r=rows: [
                        asyncio.run(v.verify_many([row])) for row in r]}
            seconds = interleaved(gate, runs, repeats)
            found[f"{recipe}/{form}"] = {
                name: round(len(rows) / median(times), 1) for name, times in seconds.items()}
    return {"verdicts_per_second": found}


SECTIONS: dict[str, Callable[[Gate, int], Figures]] = {
    "rules": rules, "math": math, "neural": neural}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
