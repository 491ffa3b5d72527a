"""How far a run's answers are from the shortest honest chain: tokens by family and rung.

    python tools/shortest_chains.py runs/climb-<time>

Of every test prompt the shortest of the teacher's strategies (docs/rungs/cot_sft.md), in the run's
own tokens; beside it the greedy answers after every rung.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer

from safeladder.data.microworld.chains import STRATEGIES
from safeladder.data.sources import build_source
from safeladder.ladder.recipe import load_recipe


def shortest(run: Path, tokenizer: Tokenizer) -> pd.DataFrame:
    """prompt_id -> family and the tokens of its shortest chain."""
    rows = []
    test = next(one for one in load_recipe(str(run / "recipe.yaml"), []).evaluation.sets
                if one.name == "test")
    for source in test.data:
        taught = source.model_dump(exclude_none=True) | {"teacher": {"ideal": 1}}
        for strategy in STRATEGIES[source.family]:
            for row in build_source(taught | {"strategies": {strategy: 1}}):
                rows.append((row.id, source.family, strategy,
                             len(tokenizer.encode(row.messages[-1].text).ids)))
    frame = pd.DataFrame(rows, columns=["prompt_id", "family", "strategy", "tokens"])
    print(frame.pivot_table(index="family", columns="strategy", values="tokens").round(1)
          .to_string(na_rep=""), "\n")
    return frame.groupby("prompt_id").agg(family=("family", "first"), shortest=("tokens", "min"))


def main(run: Path) -> None:
    """Print the tables."""
    tokenizer = Tokenizer.from_file(str(run / "model" / "tokenizer.json"))
    table = shortest(run, tokenizer)
    for rung in load_recipe(str(run / "recipe.yaml"), []).rungs:
        trace = run / "traces" / f"{rung.name}-test-t0.parquet"
        if trace.exists():
            answers = pd.read_parquet(trace).set_index("prompt_id")
            table[rung.name] = [len(tokenizer.encode(text).ids)
                                for text in answers.response.loc[table.index]]
    means = table.groupby("family").mean()
    means.loc["all"] = table.drop(columns="family").mean()
    print(means.round(1).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
