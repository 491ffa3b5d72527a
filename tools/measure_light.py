"""Whole models and whole attacks held out: does a light verifier carry over to what it never saw?

    python tools/measure_light.py DATA OUT.json

DATA is what ``tools/light_data.py`` wrote. For each model, and each attack, a verifier is fitted
on the training part without its rows, and measured on its rows of the test part (other
behaviours, too), beside prefix matching. Fewer synthetic rows and folds than in the shipped
recipes, so that a dozen fits take minutes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from safeladder.data.responses import LabelledResponse, read_responses
from safeladder.eval.classification import Judged, classify
from safeladder.ladder.verifier_light import fit_light
from safeladder.ladder.verifier_recipe import load_verifier_recipe
from safeladder.ladder.verify_file import judge_rows
from safeladder.verifiers.base import Verifier
from safeladder.verifiers.labels import canonical
from safeladder.verifiers.light import LightVerifier
from safeladder.verifiers.prefix_refusal import PrefixRefusal

SYNTHETIC = 2000
HELD_OUT = {"model": ("llama-2-7b-chat-hf", "vicuna-13b-v1.5", "gpt-3.5-turbo-1106",
                      "gpt-4-0125-preview"),
            "attack": ("PAIR", "GCG", "JBC", "DSN", "prompt_with_random_search")}


def figures(verifier: Verifier, classes: Sequence[str], rows: Sequence[LabelledResponse]) -> dict[
        str, object]:
    """Accuracy, macro F1 and AUROC of one verifier on some rows."""
    verdicts, _ = judge_rows(rows, {verifier.name: verifier})
    found = [verdict[verifier.name] for verdict in verdicts]
    index = {name: k for k, name in enumerate(classes)}
    judged = Judged(
        tuple(classes), np.array([index[canonical(row.label or "", classes)] for row in rows]),
        np.array([index[v.verdict_class or ""] for v in found]), tuple(row.group for row in rows),
        np.array([[(v.probabilities or {})[name] for name in classes] for v in found]))
    result = classify(judged, draws=1000)
    return {name: (value.value, value.ci95) for name, value in (
        ("accuracy", result.accuracy), ("macro F1", result.macro_f1), ("AUROC", result.auroc))}


def without(key: str, value: str) -> Callable[[LabelledResponse], bool]:
    """Rows of other models (or attacks)."""
    return lambda row: row.prompt.meta.get(key) != value


def main() -> None:
    """Fit, measure, write."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    results = []
    for recipe_name, stem in (("refusal_light", "three_way"), ("safety_light", "safety")):
        recipe = load_verifier_recipe(recipe_name, ["folds=2"])
        train, test = (read_responses(data / f"{stem}.{part}.jsonl") for part in ("train", "test"))
        real = [row for row in train if row.prompt.source != "synthetic_refusals"]
        made = [row for row in train if row.prompt.source == "synthetic_refusals"][:SYNTHETIC]
        for key, values in HELD_OUT.items():
            for value in values:
                seen = without(key, value)
                model = fit_light([*filter(seen, real), *made], recipe)
                rows = [row for row in test if not seen(row)]
                light = LightVerifier(path="unused")
                light._model = model
                results.append({
                    "recipe": recipe_name, "held out": f"{key} {value}", "rows": len(rows),
                    "light": figures(light, model.classes, rows),
                    "prefix": figures(PrefixRefusal(labels=recipe.labels), model.classes, rows)})
                print(json.dumps(results[-1]), flush=True)
    out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
