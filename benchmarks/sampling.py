"""Sampling with the local engine against Hugging Face ``generate``: the same model, the same rows.

    python benchmarks/sampling.py                   # with benchmarks/data/lengths_first_climb.json
    python benchmarks/sampling.py --lengths FILE    # another recorded histogram
    python benchmarks/sampling.py --record runs/NAME/traces/logic_rl-test-t1.parquet

Workload A: every response has the same forced length. Workload B: responses have the lengths that
the finished first climb's model sampled at temperature 1, drawn from the recorded histogram. Both
systems sample 256 rows (32 prompts of 20 to 40 tokens, 8 rows each) at temperature 1 in batches of
128 and of 256; ``generate`` ends a row of workload B by a stopping criterion, and goes on with
padding until the last row of its batch has ended, as it does with an end token. Ours returns
log-probabilities too; ``generate`` is not asked for any. Only real tokens count.

The model has random weights: the time does not depend on which tokens are drawn. Runs alternate
(ours, peer, ours, ...), the median counts, and runs during which other processes used the CPU are
repeated (--no-gate accepts them and says so). The last line is one JSON object; ``ratio_a`` and
``ratio_b`` are the peer's time over ours, the smaller of the two batch sizes.

The roofline is the time that our steps' matrix products and reading every key and value once per
step would take at this machine's measured peak and read bandwidth; the two are added, because
attention and matrix products take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Gate, interleaved, median, peak_flops, read_bandwidth

from safeladder.engine.threads import configure_threads

LENGTHS = Path(__file__).parent / "data" / "lengths_first_climb.json"
NUM_PROMPTS, GROUP = 32, 8
SHAPE: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 2048, "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Workload:
    """Prompts, and for each row of each prompt how many tokens it samples."""

    name: str
    prompts: list[list[int]]
    lengths: list[list[int]]

    @property
    def num_tokens(self) -> int:
        """Sampled tokens of all rows."""
        return sum(sum(row) for row in self.lengths)


def main() -> None:
    arguments = parse_arguments()
    if arguments.record is not None:
        record(arguments.record)
        return
    lengths = read_lengths(arguments.lengths)
    threads = configure_threads(arguments.threads)
    gate = Gate(enabled=not arguments.no_gate)
    model = build(arguments.vocab_size)
    prompts = make_prompts(arguments.vocab_size)
    workloads = [
        Workload("a", prompts, [[arguments.forced_length] * GROUP] * NUM_PROMPTS),
        Workload("b", prompts, draw_lengths(lengths)),
    ]
    results = {w.name: {batch: compare(gate, model, w, batch, arguments)
                        for batch in arguments.batches} for w in workloads}
    print(json.dumps({
        "benchmark": "sampling",
        **{f"ratio_{name}": round(min(r["ratio"] for r in by_batch.values()), 3)
           for name, by_batch in results.items()},
        "threads": threads.num_threads, "gate": gate.summary(), "repeats": arguments.repeats,
        "workloads": results, "model": {"vocab_size": arguments.vocab_size, **SHAPE},
        "lengths": str(arguments.lengths.name), "versions": versions(),
    }))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--forced-length", type=int, default=100, help="workload A, tokens")
    parser.add_argument("--vocab-size", type=int, default=512)
    parser.add_argument("--lengths", type=Path, default=LENGTHS, help="histogram of workload B")
    parser.add_argument("--no-gate", action="store_true", help="accept runs on a busy machine")
    parser.add_argument("--record", type=Path, metavar="TRACES",
                        help=f"write the response lengths of a trace file to {LENGTHS}, and stop")
    return parser.parse_args()


def record(traces: Path) -> None:
    """Write the histogram of a trace file's response lengths."""
    import pyarrow.parquet as pq

    rows = pq.read_table(traces, columns=["num_tokens", "temperature"]).to_pylist()
    if any(row["temperature"] != 1 for row in rows):
        raise SystemExit(f"{traces} was not sampled at temperature 1: take the file ending in -t1")
    counts = Counter(row["num_tokens"] for row in rows)
    LENGTHS.parent.mkdir(exist_ok=True)
    LENGTHS.write_text(json.dumps({
        "unit": "tokens per response", "temperature": 1, "traces": traces.name, "num": len(rows),
        "counts": {str(length): counts[length] for length in sorted(counts)}}, indent=1) + "\n",
        encoding="ascii")
    print(f"{len(rows)} lengths written to {LENGTHS}")


def read_lengths(path: Path) -> list[int]:
    """Every recorded length, as often as it was seen."""
    if not path.exists():
        raise SystemExit(f"{path} does not exist: record it from a finished climb (--record) or "
                         "name another histogram (--lengths)")
    counts = json.loads(path.read_text(encoding="ascii"))["counts"]
    return [int(length) for length, count in counts.items() for _ in range(count)]


def draw_lengths(recorded: Sequence[int]) -> list[list[int]]:
    import numpy as np

    drawn = np.random.default_rng(0).choice(np.array(recorded), (NUM_PROMPTS, GROUP))
    return [[max(1, int(length)) for length in row] for row in drawn]


def make_prompts(vocab_size: int) -> list[list[int]]:
    import numpy as np

    rng = np.random.default_rng(1)
    return [rng.integers(1, vocab_size, rng.integers(20, 41)).tolist()
            for _ in range(NUM_PROMPTS)]


def build(vocab_size: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=vocab_size, bos_token_id=None, eos_token_id=None,
                         pad_token_id=0, **SHAPE)
    return AutoModelForCausalLM.from_config(config).eval()


def compare(
    gate: Gate, model: Any, workload: Workload, batch: int, arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Seconds of both systems at one batch size, and the ratio of their medians."""
    print(f"workload {workload.name}, batch {batch}: {workload.num_tokens} tokens", flush=True)
    ours = Ours(model, batch, arguments.threads)
    seconds = interleaved(gate, {
        "ours": lambda: ours.run(workload), "peer": lambda: run_generate(model, workload, batch),
    }, arguments.repeats)
    middle = {name: median(values) for name, values in seconds.items()}
    roofline = roofline_seconds(model, workload, batch)
    return {
        "ratio": round(middle["peer"] / middle["ours"], 3), "tokens": workload.num_tokens,
        "seconds": {name: [round(s, 4) for s in values] for name, values in seconds.items()},
        "tokens_per_second": {name: round(workload.num_tokens / s) for name, s in middle.items()},
        "roofline": {name: round(value, 4) for name, value in roofline.items()},
        "ours_over_roofline": round(middle["ours"] / sum(roofline.values()), 2),
    }


class Ours:
    """The local sampler with ``batch`` rows at a time, shared by ``workers`` threads."""

    def __init__(self, model: Any, batch: int, workers: int) -> None:
        from safeladder.engine.local.models import LoadedModel
        from safeladder.engine.local.sampler import SamplingEngine, SamplingOptions

        self.engine = SamplingEngine(LoadedModel(model, tokenizer=None),  # type: ignore[arg-type]
                                     SamplingOptions(max_rows=batch, workers=workers))

    def run(self, workload: Workload) -> None:
        """A fresh sampler, as after an optimizer step: packing the weights is part of the time."""
        asyncio.run(self._sample(workload))

    async def _sample(self, workload: Workload) -> None:
        from safeladder.engine.base import SamplingParams

        sampler = self.engine.sampler()
        calls = [sampler.sample(prompt, SamplingParams(max_tokens=length, seed=p * GROUP + row))
                 for p, (prompt, lengths) in enumerate(
                     zip(workload.prompts, workload.lengths, strict=True))
                 for row, length in enumerate(lengths)]
        completions = [group[0] for group in await asyncio.gather(*calls)]
        assert sum(len(c.token_ids) for c in completions) == workload.num_tokens


def run_generate(model: Any, workload: Workload, batch: int) -> None:
    """``generate`` over batches of rows in order, prompts padded on the left."""
    import torch
    from transformers import StoppingCriteriaList

    prompts = [prompt for prompt in workload.prompts for _ in range(GROUP)]
    lengths = [length for row in workload.lengths for length in row]
    for start in range(0, len(prompts), batch):
        some, limits = prompts[start:start + batch], torch.tensor(lengths[start:start + batch])
        width = max(map(len, some))
        ids = torch.zeros(len(some), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(some):
            ids[row, width - len(prompt):] = torch.tensor(prompt)
            mask[row, width - len(prompt):] = 1
        ragged = {} if len(set(limits.tolist())) == 1 else {
            "stopping_criteria": StoppingCriteriaList([RowLengths(width + limits)])}
        made = model.generate(ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0,
                              top_p=1.0, max_new_tokens=int(limits.max()), pad_token_id=0, **ragged)
        assert made.shape[1] == width + int(limits.max())


class RowLengths:
    """A stopping criterion of ``generate``: row i ends at ``limits[i]`` tokens."""

    def __init__(self, limits: Any) -> None:
        self.limits = limits

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """For each row whether it has ended."""
        return input_ids.shape[1] >= self.limits


def roofline_seconds(model: Any, workload: Workload, batch: int) -> dict[str, float]:
    """Seconds for the products, and for reading keys and values, of the sampled tokens."""
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2)
    flops, num_bytes = 0.0, 0.0
    per_position = 2 * SHAPE["num_key_value_heads"] * SHAPE["head_dim"] * 4
    for prompt, lengths in zip(workload.prompts, workload.lengths, strict=True):
        flops += 2 * weights * len(prompt)
        for length in lengths:
            positions = sum(range(len(prompt) + 1, len(prompt) + length))
            flops += 2 * weights * (length - 1)
            flops += (4 * SHAPE["num_attention_heads"] * SHAPE["head_dim"]
                      * SHAPE["num_hidden_layers"] * positions)
            num_bytes += per_position * SHAPE["num_hidden_layers"] * positions
    # Bandwidth at the size that is read again and again: it may or may not fit into a cache.
    mean_rows = min(batch, NUM_PROMPTS * GROUP)
    working_set = int(num_bytes / workload.num_tokens * mean_rows)
    return {"products": flops / peak_flops(),
            "keys_and_values": num_bytes / read_bandwidth(working_set)}


def versions() -> dict[str, str]:
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__,
            "python": platform.python_version(), "machine": platform.machine()}


if __name__ == "__main__":
    main()
