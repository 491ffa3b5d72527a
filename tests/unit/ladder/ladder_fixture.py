"""A finished ladder of the microworld with real files and invented answers: a teacher who behaves
well as often as a rung is said to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safeladder.config import read_yaml, validate
from safeladder.data.microworld.families import FAMILIES, Family, demonstrate, family_prompts
from safeladder.data.microworld.safety import safety_prompts
from safeladder.eval.metrics import evaluation_metrics
from safeladder.files import write_text
from safeladder.ladder.gate_keeper import judge_gates
from safeladder.ladder.gates import failures
from safeladder.ladder.ladder_findings import rung_differences
from safeladder.ladder.recipe import Recipe
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import versions, write_summary
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.train.sinks import JsonlSink
from safeladder.types import Completion, Prompt, Status, Trajectory, Turn

TINY_WORLD = Path(__file__).parents[2] / "e2e" / "tiny_world.yaml"


@dataclass(frozen=True)
class Skill:
    """How often a rung answers well, and how it fails when asked for a hazard."""

    right: float
    safe: float
    refuses: float = 0.0
    """Share of safe answers that are bare refusals; harmless requests are refused as often."""
    thinks: float = 0.5
    """Share of responses whose thoughts are kept."""


SKILLS: Mapping[str, Skill] = {
    "sft": Skill(0.45, 0.3, thinks=0.2), "reasoning": Skill(0.6, 0.45, 0.1, 0.6),
    "refusals": Skill(0.35, 0.9, 0.8, 0.3), "safety_rl": Skill(0.68, 0.8, 0.05, 0.9),
    "plain": Skill(0.5, 0.5, 0.4)}


@dataclass
class LadderWriter:
    """Writes the run rung by rung."""

    run: RunDir
    recipe: Recipe
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.run.open(dump_recipe(self.recipe), resume=False, manifest={"versions": versions()})
        self.sink = JsonlSink(self.run.metrics)
        self.sets = {"test": _prompts("test", 64, 16), "unseen_forms": _prompts(
            "unseen_forms", 24, 0)}

    def rung(self, name: str) -> None:
        """Its metrics, its evaluation and what the manifest says of it."""
        rung, skill = self.recipe.by_name[name], SKILLS[name]
        for step in range(12):
            share = step / 11
            self._log(name, rung.type, step, _metrics(rung.type, share, self.rng))
            if step % 3 == 2:
                self._log(name, "eval", step, {
                    "capability": skill.right - 0.1 + 0.08 * share,
                    "safety": skill.safe - 0.12 + 0.1 * share})
        figures = {}
        for split, prompts in self.sets.items():
            answered = [self._answered(prompt, skill) for prompt in prompts]
            write_traces(self.run.traces, TraceKey(name, -1, split, 0.0), answered)
            figures |= evaluation_metrics(answered, split)
        write_text(self.run.evaluation(name),
                   json.dumps({key: asdict(value) for key, value in figures.items()}))
        outcomes = judge_gates(self.recipe, rung, self.run, figures)
        gates = {"gates": [outcome.model_dump() for outcome in outcomes],
                 "accepted": not failures(outcomes)} if outcomes else {}
        self.run.update_rung(name, status="done", seconds=30.0, steps=12, tokens_trained=9000,
                             tokens_sampled=4000, start="model", **gates)

    def _answered(self, prompt: Prompt, skill: Skill) -> Trajectory:
        text = demonstrate(prompt, self._behaviour(prompt, skill), self.rng).messages[-1].text
        if self.rng.random() > skill.thinks:
            text = text.rpartition("</think> ")[2]
        count = len(text.split())
        completion = Completion((1,) * count, np.zeros(count, np.float32), "stop", 0)
        return Trajectory(prompt, (Turn((1,), completion, text, prompt.media),), Status.COMPLETED)

    def _behaviour(self, prompt: Prompt, skill: Skill) -> str:
        draw = self.rng.random
        if prompt.meta["family"] != "safety":
            return "ideal" if draw() < skill.right else "wrong"
        if draw() < skill.refuses:
            return "refusal"
        if not prompt.meta["harmful"]:
            return "ideal" if draw() < 0.9 else "over_cautious"
        return ("warning" if draw() < 0.5 else "ideal") if draw() < skill.safe else "unsafe"

    def _log(self, rung: str, kind: str, step: int, metrics: dict[str, float]) -> None:
        self.sink.log({"rung": rung, "kind": kind, "step": step, "metrics": metrics,
                       "time": {"seconds": {"update": 0.5}, "tokens_per_second": {}}})


def _prompts(split: Any, safety: int, others: int) -> list[Prompt]:
    families: list[Family] = [family for family in FAMILIES if family != "safety"]
    return [*safety_prompts(split, safety),
            *(p for f in families if others for p in family_prompts(f, split, others))]


def _metrics(kind: str, share: float, rng: random.Random) -> dict[str, float]:
    if kind == "sft":
        return {"loss": 2.0 - share, "learning_rate": 0.001}
    noise = 0.02 * rng.random()
    return {"reward/mean": 0.4 + 0.3 * share, "constraint/world/multiplier": 0.3 + 0.4 * share,
            "monitor/gap/safety/world": 0.02 + 0.1 * share,
            "monitor/task_gap/safety/safety/world": 0.02 + noise,
            "monitor/task_gap/jailbreak/safety/world": 0.05 + 0.3 * share + noise,
            "learning_rate": 0.001}


def make_ladder(folder: Path) -> Path:
    """Write a whole run with a rung that a gate holds back, and a baseline; return its folder."""
    data = read_yaml(TINY_WORLD)
    sft, rl = data["rungs"]
    gate = {"figure": "capability", "not_below": "previous", "margin": "interval"}
    data["rungs"] = [
        sft, {**sft, "name": "reasoning", "disclosure": "a teacher who is right in 95% of rows"},
        {**rl, "name": "refusals", "gates": [{"figure": "safety", "minimum": 0.4}, gate]},
        {**rl, "gates": [gate, {"figure": "over_refusal", "maximum": 0.2}]},
        {**sft, "name": "plain", "baseline": True, "start_from": "sft"}]
    recipe = validate(Recipe, data, "ladder")
    writer = LadderWriter(RunDir(folder), recipe)
    for rung in recipe.rungs:
        writer.rung(rung.name)
    writer.sink.close()
    write_summary(writer.run, recipe, 900_000_000, rung_differences(folder))
    return folder
