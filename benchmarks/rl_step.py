"""One reinforcement-learning step of the local engine against TRL 1.16.0's GRPOTrainer.

    python benchmarks/rl_step.py                 # 1 thread, then 2 threads
    python benchmarks/rl_step.py --threads 1

Both do the same work: 16 prompts of 30 tokens, 8 completions each of forced length 80 at
temperature 1, the same cheap reward, group-normalised advantages, the DAPO token-mean loss without
a reference, one AdamW step with clipping, fp32. The model is a Qwen3 of 0.8M parameters (hidden
128, 4 layers, 4 heads, 2 key-value heads, intermediate 384, 44 words) with the same random weights.
No row is skipped: the reward differs within every group. Ours counts everything from the prompts'
text to the updated weights: tokenizing, sampling, decoding, rewards, advantages, update.

Blocks of steps alternate (TRL, ours, TRL, ...); the first steps of each are dropped as warm-up, the
median step of each block counts, and the ratio is the median over repeats of TRL's time over ours.
Blocks during which other processes used the CPU are run again (--no-gate accepts them and says so).

The update (forward, backward, optimizer) is also compared with its own matrix products: every
``mm``, ``addmm`` and ``bmm`` of one update is recorded with its operands and executed again, alone,
in the same order and the same memory (``update_over_products``), and with one warm set of operands
for each shape (``update_over_warm_products``). This is done with one worker.

The last line is one JSON object; ``ratio`` is the smaller over the numbers of threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Gate

from safeladder.engine.threads import configure_threads

NUM_PROMPTS, GROUP, PROMPT_TOKENS, COMPLETION_TOKENS = 16, 8, 30, 80
LEARNING_RATE = 1e-4
SHAPE: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 512, "tie_word_embeddings": True,
}
WORDS = ["<pad>", "<eos>", *(f"w{i}" for i in range(42))]


def main() -> None:
    arguments = parse_arguments()
    if len(arguments.threads) > 1:
        print(json.dumps(merge([in_own_process(n, arguments) for n in arguments.threads])))
        return
    (threads,) = arguments.threads
    configure_threads(threads)
    print(json.dumps(run(threads, Gate(enabled=not arguments.no_gate), arguments)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of a block")
    parser.add_argument("--trl-device-batch", type=int, default=128,
                        help="rows per forward of TRL; the optimizer step is the same")
    parser.add_argument("--no-gate", action="store_true", help="accept blocks on a busy machine")
    return parser.parse_args()


def in_own_process(threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Thread counts are read when torch starts, so each needs a process."""
    command = [sys.executable, __file__, "--threads", str(threads),
               "--repeats", str(arguments.repeats), "--steps", str(arguments.steps)]
    command += ["--trl-device-batch", str(arguments.trl_device_batch)]
    command += ["--no-gate"] * arguments.no_gate
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        last = ""
        for line in child.stdout:
            last = line
            if not line.startswith("{"):
                print(line, end="", flush=True)
    if child.returncode:
        raise SystemExit(child.returncode)
    result: dict[str, Any] = json.loads(last)
    return result


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"benchmark": "rl_step", "ratio": min(r["ratio"] for r in results),
            "update_over_products": max(r["update_over_products"] for r in results),
            "by_threads": {str(r["threads"]): r for r in results}}


def run(threads: int, gate: Gate, arguments: argparse.Namespace) -> dict[str, Any]:
    theirs, ours = Theirs(arguments.trl_device_batch), Ours(workers=threads)
    times: dict[str, list[Step]] = {"trl": [], "ours": []}
    systems: dict[str, Callable[[int], list[Step]]] = {"trl": theirs.steps, "ours": ours.steps}
    for steps in systems.values():
        steps(2)
    for repeat in range(arguments.repeats):
        for name, steps in systems.items():
            block: list[Step] = []
            gate.seconds(lambda: block.__setitem__(slice(None), steps(arguments.steps)))  # noqa: B023
            middle = Step(*(statistics.median(values) for values in
                            zip(*((s.sampling, s.update, s.other) for s in block), strict=True)))
            times[name].append(middle)
            print(f"  {threads} threads, repeat {repeat + 1}, {name}: {middle}", flush=True)
    middle = {name: {part: statistics.median(getattr(s, part) for s in steps)
                     for part in ("total", "sampling", "update", "other")}
              for name, steps in times.items()}
    ratios = [t.total / o.total for t, o in zip(times["trl"], times["ours"], strict=True)]
    return {
        "benchmark": "rl_step", "threads": threads, "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "seconds_per_step": {name: {k: round(v, 4) for k, v in parts.items()}
                             for name, parts in middle.items()},
        **products(gate, arguments.repeats),
        "gate": gate.summary(), "repeats": arguments.repeats,
        "rows": NUM_PROMPTS * GROUP, "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS, "model": {"vocab_size": len(WORDS), **SHAPE},
        "versions": versions(),
    }


@dataclass
class Step:
    """Seconds of one step."""

    sampling: float
    update: float
    other: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.sampling + self.update + self.other

    def __str__(self) -> str:
        return (f"{self.total:.3f} s (sampling {self.sampling:.3f}, update {self.update:.3f}, "
                f"other {self.other:.3f})")


# ---------------------------------------------------------------------- what both share


def build_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>",
                                   padding_side="left")


def build_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Qwen3Config(
        vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=None, **SHAPE))


def build_prompts(count: int) -> list[str]:
    import numpy as np

    rng = np.random.default_rng(3)
    return [" ".join(WORDS[i] for i in rng.integers(2, len(WORDS), PROMPT_TOKENS))
            for _ in range(count)]


def reward(completions: list[str], **_: Any) -> list[float]:
    """A number from the completion's text: never equal within a group."""
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]


# ---------------------------------------------------------------------- TRL


class Theirs:
    """TRL's trainer, set to the same work; a callback times its steps."""

    def __init__(self, device_batch: int) -> None:
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer

        arguments = GRPOConfig(
            output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, gradient_checkpointing=False,
            report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=10**6,
            per_device_train_batch_size=device_batch,
            gradient_accumulation_steps=NUM_PROMPTS * GROUP // device_batch,
            num_generations=GROUP, max_completion_length=COMPLETION_TOKENS, max_steps=1,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", beta=0.0, temperature=1.0,
            loss_type="dapo", scale_rewards="group", max_grad_norm=1.0, seed=0,
            shuffle_dataset=False, dataloader_pin_memory=False,
            generation_kwargs={"min_new_tokens": COMPLETION_TOKENS})
        self.clock = StepClock()
        self.trainer = GRPOTrainer(
            model=build_model(), reward_funcs=reward, args=arguments,
            train_dataset=Dataset.from_list([{"prompt": p} for p in build_prompts(512)]),
            processing_class=build_tokenizer())
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.add_callback(self.clock.callback())
        inner = self.trainer._generate_and_score_completions

        def timed(inputs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(inputs)
            finally:
                self.clock.sampling += time.perf_counter() - start
        self.trainer._generate_and_score_completions = timed

    def steps(self, count: int) -> list[Step]:
        """Run ``count`` optimizer steps."""
        self.trainer.args.max_steps = count
        self.clock.found = []
        self.trainer.train()
        figures = self.trainer.state.log_history[0]
        assert len(self.clock.found) == count and figures["frac_reward_zero_std"] == 0
        assert figures["completions/min_length"] == COMPLETION_TOKENS
        return self.clock.found


@dataclass
class StepClock:
    """Times TRL's steps: sampling and scoring apart from the rest."""

    sampling: float = 0.0
    start: float = 0.0
    found: list[Step] = field(default_factory=list)

    def callback(self) -> Any:
        """A trainer callback that times its steps."""
        from transformers import TrainerCallback

        clock = self

        class Timed(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                clock.sampling, clock.start = 0.0, time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                total = time.perf_counter() - clock.start
                clock.found.append(Step(clock.sampling, total - clock.sampling, 0.0))

        return Timed()


# ---------------------------------------------------------------------- ours


class Ours:
    """The local engine through its public verbs."""

    def __init__(self, workers: int) -> None:
        from safeladder.algos.presets import build_algorithm
        from safeladder.engine.base import OptimParams, SamplingParams
        from safeladder.engine.local import LoadedModel, LocalTrainer

        self.tokenizer = build_tokenizer()
        self.trainer = LocalTrainer(
            LoadedModel(build_model().eval(), self.tokenizer), workers=workers,
            max_rows=NUM_PROMPTS * GROUP)
        assert self.trainer.is_packed
        self.algorithm = build_algorithm("dapo")
        self.optim = OptimParams(learning_rate=LEARNING_RATE, beta2=0.999)
        self.sampling = SamplingParams(max_tokens=COMPLETION_TOKENS, min_tokens=COMPLETION_TOKENS,
                                       stop_token_ids=(1,))
        self.prompts = build_prompts(512)
        self.taken = 0

    def steps(self, count: int) -> list[Step]:
        """Run ``count`` optimizer steps."""
        return [asyncio.run(self.step()) for _ in range(count)]

    async def step(self) -> Step:
        """Sample, reward, update."""
        begin = time.perf_counter()
        data = await self.rollout()
        sampled = time.perf_counter()
        await self.update(data)
        end = time.perf_counter()
        return Step(sampled - begin, end - sampled, 0.0)

    async def rollout(self) -> tuple[Any, ...]:
        """Prompts to datums of one optimizer step."""
        from dataclasses import replace

        from safeladder.types import Batch

        texts = [self.prompts[(self.taken + i) % len(self.prompts)] for i in range(NUM_PROMPTS)]
        self.taken += NUM_PROMPTS
        prompts = self.tokenizer(texts)["input_ids"]
        policy = await self.trainer.sampler()
        groups = await asyncio.gather(*(
            policy.sample(ids, replace(self.sampling, seed=self.taken + i), GROUP)
            for i, ids in enumerate(prompts)))
        rows = [(p, c) for p, group in enumerate(groups) for c in group]
        assert {len(c.token_ids) for _, c in rows} == {COMPLETION_TOKENS}
        rewards = reward(self.tokenizer.batch_decode([c.token_ids for _, c in rows]))
        (minibatch,) = Batch(self.datums(prompts, rows, rewards), tuple(p for p, _ in rows),
                             self.algorithm.normalization, COMPLETION_TOKENS).split(1)
        assert len(minibatch) == NUM_PROMPTS * GROUP
        return minibatch

    def datums(self, prompts: Any, rows: Sequence[Any], rewards: Sequence[float],
               ) -> tuple[Any, ...]:
        """Rows with advantages."""
        import numpy as np

        from safeladder.algos.base import RewardTable
        from safeladder.types import Datum

        table = RewardTable(np.array(rewards), np.array([p for p, _ in rows]),
                            np.array([len(c.token_ids) for _, c in rows]))
        data = []
        for (p, completion), values in zip(rows, self.algorithm.advantage(table), strict=True):
            before = np.zeros(len(prompts[p]), np.float32)
            mask = np.concatenate([before, np.ones(len(completion.token_ids), np.float32)])
            data.append(Datum(
                token_ids=np.array([*prompts[p], *completion.token_ids]), mask=mask, weights=mask,
                advantages=np.concatenate([before, values]),
                sampler_logprobs=np.concatenate([before, completion.sampler_logprobs])))
        return tuple(data)

    async def update(self, data: tuple[Any, ...]) -> None:
        """One optimizer step."""
        await self.trainer.forward_backward(data, self.algorithm.loss)
        await self.trainer.optim_step(self.optim)


# ---------------------------------------------------------------------- products


def products(gate: Gate, repeats: int) -> dict[str, Any]:
    """Seconds of an update, of its matrix products again, and of these with warm operands."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours = Ours(workers=1)
    print("  the update and its products, one worker", flush=True)
    data = asyncio.run(ours.rollout())

    def update() -> None:
        asyncio.run(ours.update(data))
    update()
    calls = record_products(update)
    runs = {"update": update, "products": calls.again, "warm_products": calls.warm()}
    for run_once in runs.values():
        run_once()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run_once in runs.items():
            seconds[name].append(gate.seconds(run_once))
    torch.set_num_threads(threads)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"  update {middle['update']:.3f} s, its products {middle['products']:.3f} s, warm "
          f"{middle['warm_products']:.3f} s", flush=True)
    return {"update_over_products": round(middle["update"] / middle["products"], 3),
            "update_over_warm_products": round(middle["update"] / middle["warm_products"], 3),
            "update_seconds": {name: round(value, 4) for name, value in middle.items()},
            "product_gflop": round(calls.flops() / 1e9, 2), "num_products": len(calls.made)}


@dataclass
class Products:
    """The products of one update: operator, operands, and where the result went."""

    made: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def again(self) -> None:
        """The same products in the same order and memory."""
        for operator, operands, options in self.made:
            operator(*operands, **options)

    def flops(self) -> float:
        """Twice the multiply-adds."""
        total = 0
        for operator, operands, _ in self.made:
            left, right = _factors(operator, operands)
            total += 2 * left.numel() * right.shape[-1]
        return float(total)

    def warm(self) -> Callable[[], None]:
        """As many products of the same shapes and strides, with one set of operands each."""
        import torch

        kinds: Counter[Any] = Counter()
        for operator, operands, _ in self.made:
            name = operator.overloadpacket.__name__
            factors = _factors(operator, operands)
            kinds[(name, *((tuple(f.shape), f.stride()) for f in factors))] += 1
        work = []
        for (name, *layouts), count in kinds.items():
            left, right = (torch.randn(sum((n - 1) * s for n, s in zip(*layout, strict=True)) + 1
                                       ).as_strided(*layout) for layout in layouts)
            out = torch.zeros(*left.shape[:-1], right.shape[-1])
            if name.startswith("addmm"):
                work.append((count, out.addmm_, (left, right), {}))
            else:
                work.append((count, torch.bmm if name == "bmm" else torch.mm, (left, right),
                             {"out": out}))

        def run_all() -> None:
            for count, function, operands, options in work:
                for _ in range(count):
                    function(*operands, **options)
        return run_all


def _factors(operator: Any, operands: tuple[Any, ...]) -> tuple[Any, Any]:
    """The two factors; ``addmm`` has the addend in front."""
    first = 1 if operator.overloadpacket.__name__.startswith("addmm") else 0
    return operands[first], operands[first + 1]


def record_products(update: Callable[[], None]) -> Products:
    """Run ``update`` and keep every product it executes."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found = Products()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None,
                               ) -> Any:
            if func.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
                found.made.append((func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))
    with Recorder():
        update()
    return found


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "transformers", "trl")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
