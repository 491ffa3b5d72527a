"""Read IFEval's published rows and show that every instruction is understood.

    python tools/measure_ifeval.py FOLDER      # holds input_data.jsonl

Prints how many prompts and instructions were read, instructions by type, and the four published
accuracies of an empty and of a constant response. A row that cannot be read is an error.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.ifeval import IFEval, ifeval_rates
from safeladder.verifiers.ifeval.instructions import build_checks

CONSTANT = "Thank you for your question. I am happy to help you with that."


def main() -> None:
    """Read, count, judge."""
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").strip())
    lines = (Path(sys.argv[1]) / "input_data.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    types = Counter(name for row in rows for name, _ in build_checks(row))
    print(f"{len(rows)} prompts, {types.total()} instructions of {len(types)} types understood")
    for name, count in sorted(types.items()):
        print(f"{count:5} {name}")
    verifier = IFEval()
    for kind, response in (("empty", ""), ("constant", CONSTANT)):
        verdicts = [verifier.verify(trajectory_of(response, row)) for row in rows]
        rates = ifeval_rates(verdicts)
        print(f"{kind} response: judged {rates.judged}, unjudged {rates.unjudged}, prompt strict "
              f"{rates.prompt_strict:.4f}, instruction strict {rates.instruction_strict:.4f}, "
              f"prompt loose {rates.prompt_loose:.4f}, instruction loose "
              f"{rates.instruction_loose:.4f}")


if __name__ == "__main__":
    main()
