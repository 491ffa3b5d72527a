"""A run directory with real files and invented numbers: every file is written by the code that
writes it in a climb, only the policy is a coin.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from safeladder.data.knights_knaves.compact import (
    Puzzle,
    Split,
    Strategy,
    draw_distinct,
    puzzle_text,
    response_text,
    role,
)
from safeladder.eval.metrics import evaluation_metrics
from safeladder.files import write_text
from safeladder.ladder.recipe import Recipe, load_recipe
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import versions, write_summary
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.train.sinks import JsonlSink
from safeladder.types import Completion, Group, Message, Prompt, Status, Trajectory, Turn
from safeladder.verifiers import LogicRL, build_objective, verify_all

OBJECTIVE = build_objective(
    {"tasks": {"*": {"parts": {"logic_rl.format": 1.0, "logic_rl.answer": 1.0}}}})


@dataclass(frozen=True)
class Policy:
    """How often a coin is right (a bit less on three people), well formed, and verifies."""

    right: float
    well_formed: float = 1.0
    checks: float = 0.1
    works: float = 0.3

    def answer(self, puzzle: Puzzle, rng: np.random.Generator) -> str:
        draw = rng.random()
        strategy: Strategy = ("check" if draw < self.checks else
                              "work" if draw < self.checks + self.works else "sight")
        text = response_text(puzzle, strategy)
        if rng.random() > self.right * (1.0 if len(puzzle.names) == 2 else 0.75):
            name = f" {puzzle.names[0]} "
            head, _, tail = text.rpartition("<answer>")
            right = role(puzzle.solution[0])
            wrong = role(not puzzle.solution[0])
            text = f"{head}<answer>{tail.replace(f'{name}{right}', f'{name}{wrong}', 1)}"
        return text if rng.random() < self.well_formed else text.replace("<answer>", "", 1)


@dataclass(frozen=True)
class Size:
    """How much the run holds."""

    puzzles: int = 12
    sft_steps: int = 16
    rl_steps: int = 8
    prompts: int = 2
    group: int = 2


POLICIES = {"base": Policy(0.05, 0.4, 0.0, 1.0), "cot_sft": Policy(0.55, 0.97),
            "logic_rl": Policy(0.93, 1.0, 0.35, 0.6), "more_sft": Policy(0.6, 0.98),
            "shuffled_rl": Policy(0.5, 0.9)}


@dataclass
class RunWriter:
    """Writes the run rung by rung."""

    run: RunDir
    recipe: Recipe
    size: Size
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.run.open(dump_recipe(self.recipe), resume=False, manifest={"versions": versions()})
        self.sink = JsonlSink(self.run.metrics)
        self.puzzles: dict[Split, list[Puzzle]] = {
            split: [p for n in (2, 3) for p in draw_distinct(
                random.Random(7), n, split, self.size.puzzles)]
            for split in ("test", "unseen_forms", "train")}

    def supervised(self, name: str, start: float) -> None:
        """The records of a supervised rung: a loss that levels off."""
        steps = self.size.sft_steps
        for step in range(steps):
            loss = 0.2 + start * math.exp(-8 * step / steps) + 0.01 * self.rng.standard_normal()
            self._log(name, "sft", step, {"loss": loss, "learning_rate": 0.004,
                                          "grad_norm": 1 + 0.1 * self.rng.random()}, ["update"])
            if step % (steps // 4) == 0:
                self._log(name, "eval", step, {"validation/loss": loss + 0.03}, [])
        self.finish(name, steps)

    def reinforced(self, name: str, last: Policy) -> None:
        """The records and traces of an RL rung: a coin that gets better."""
        first, steps = POLICIES["cot_sft"], self.size.rl_steps
        for step in range(steps):
            share = step / max(steps - 1, 1)
            policy = Policy(*(a + (b - a) * share for a, b in zip(
                asdict(first).values(), asdict(last).values(), strict=True)))
            groups = [self._group(puzzle, policy) for puzzle in self._drawn()]
            write_traces(self.run.traces, TraceKey(name, step, "train", 1.0),
                         (t for group in groups for t in group.trajectories))
            self._log(name, "rl", step, self._rl_metrics(groups, share),
                      ["sampling", "verification", "update"])
            if step % max(steps // 6, 1) == 0:
                self._log(name, "eval", step, {
                    "kk2_accuracy": policy.right - 0.03 * self.rng.random(),
                    "kk3_accuracy": 0.75 * policy.right}, ["evaluation"])
        self.finish(name, steps)

    def finish(self, name: str, steps: int) -> None:
        """Evaluate and book the rung as done."""
        figures: dict[str, Any] = {}
        splits: tuple[Split, ...] = ("test", "unseen_forms")
        for split in splits:
            for temperature in (0.0, 1.0):
                policy = POLICIES[name]
                judged = [self._group(puzzle, policy, 1).trajectories[0]
                          for puzzle in self.puzzles[split]]
                write_traces(self.run.traces, TraceKey(name, -1, split, temperature), judged)
                figures |= {key: asdict(value) for key, value in
                            evaluation_metrics(judged, split, temperature).items()}
        write_text(self.run.evaluation(name), json.dumps(figures))
        self.run.update_rung(name, status="done", seconds=72.5, steps=steps, tokens_trained=10000,
                             tokens_sampled=5000, start="model")

    def _drawn(self) -> list[Puzzle]:
        train = self.puzzles["train"]
        return [train[int(i)] for i in self.rng.integers(len(train), size=self.size.prompts)]

    def _group(self, puzzle: Puzzle, policy: Policy, count: int | None = None) -> Group:
        prompt = Prompt(
            id=f"{len(puzzle.names)}-{puzzle_text(puzzle)}", source="compact_knights_knaves",
            messages=(Message("user", puzzle_text(puzzle)),), task="logic",
            reference={"names": list(puzzle.names), "roles": [role(k) for k in puzzle.solution]},
            meta={"people": len(puzzle.names), "structure": puzzle.structure})
        rows = [_trajectory(prompt, policy.answer(puzzle, self.rng))
                for _ in range(count or self.size.group)]
        group = Group(prompt, rows)
        asyncio.run(verify_all([group], {"logic_rl": LogicRL()}, OBJECTIVE))
        return group

    def _rl_metrics(self, groups: Sequence[Group], share: float) -> dict[str, float]:
        rows = [t for group in groups for t in group.trajectories]
        rewards = [t.reward for t in rows if t.reward and t.reward.total is not None]
        noise = self.rng.random()
        return {
            "reward/mean": float(np.mean([r.total for r in rewards if r.total is not None])),
            "reward/part/format": float(np.mean([r.parts["format"] or 0.0 for r in rewards])),
            "reward/part/answer": float(np.mean([r.parts["answer"] or 0.0 for r in rewards])),
            "accuracy": sum(t.verdicts["logic_rl"].verdict_class == "correct"
                            for t in rows) / len(rows),
            "response/mean_tokens": float(np.mean([t.num_tokens for t in rows])),
            "response/truncated": 0.01 * noise, "groups/zero_std": 0.2 + 0.4 * share,
            "entropy": 0.3 - 0.2 * share + 0.02 * noise, "kl_old": 0.002 + 0.001 * noise,
            "clip_fraction": 0.01 * noise, "grad_norm": 0.5 + 0.3 * noise,
            "mismatch_kl": 1e-7 * noise, "learning_rate": 0.001, "loss": 0.01 * noise,
            "abstentions/logic_rl": float(noise > 0.7)}

    def _log(self, rung: str, kind: str, step: int, metrics: dict[str, float],
             phases: Sequence[str]) -> None:
        speeds = {phase: 9000 + 500 * self.rng.random() for phase in phases
                  if phase in ("update", "sampling")}
        self.sink.log({
            "rung": rung, "kind": kind, "step": step, "metrics": metrics,
            "time": {"seconds": {phase: 0.3 + 0.1 * i for i, phase in enumerate(phases)},
                     "tokens_per_second": speeds}})


def _trajectory(prompt: Prompt, response: str) -> Trajectory:
    words = len(response.split())
    completion = Completion((1,) * words, np.zeros(words, np.float32), "stop", 0)
    return Trajectory(prompt, (Turn((1, 2), completion, response),), Status.COMPLETED)


def make_run(folder: Path, size: Size | None = None) -> Path:
    """Write a whole run; return its folder."""
    shipped = load_recipe("first_climb", [])
    by_type = {rung.type: rung for rung in shipped.rungs}
    kinds: dict[str, Literal["sft", "rl"]] = {
        "base": "sft", "cot_sft": "sft", "logic_rl": "rl", "more_sft": "sft",
        "shuffled_rl": "rl"}
    recipe = shipped.model_copy(update={"rungs": [
        by_type[kind].model_copy(update={
            "name": name, "evaluate": True, "baseline": name in ("more_sft", "shuffled_rl"),
            "start_from": "cot_sft" if name in ("more_sft", "shuffled_rl") else None})
        for name, kind in kinds.items()]})
    writer = RunWriter(RunDir(folder), recipe, size or Size())
    writer.supervised("base", 2.0)
    writer.supervised("cot_sft", 0.8)
    writer.reinforced("logic_rl", POLICIES["logic_rl"])
    writer.supervised("more_sft", 0.1)
    writer.reinforced("shuffled_rl", POLICIES["shuffled_rl"])
    writer.sink.close()
    write_summary(writer.run, recipe, peak_rss_bytes=1_500_000_000)
    return folder
