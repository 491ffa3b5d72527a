"""One rung: build what its loop needs, run the loop, judge the result, leave a checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safeladder.algos.presets import build_algorithm
from safeladder.data.sources import traced_answers
from safeladder.data.stream import build_stream
from safeladder.engine.base import Sampler, SamplingParams, Trainer
from safeladder.engine.local.models import LoadedModel, save_checkpoint
from safeladder.envs import Environment
from safeladder.eval.deliberation import (
    answer_of,
    deliberation_metrics,
    false_certain_baseline_matched,
    false_certain_minus_matched,
)
from safeladder.eval.evaluate import evaluate
from safeladder.eval.metrics import evaluation_metrics, suffix
from safeladder.eval.statistics import Estimate
from safeladder.files import write_text
from safeladder.ladder.build import (
    Collector,
    Judge,
    build_renderer,
    build_trainer,
    check_failures,
    check_judged,
    initial_model,
    load_checkpoint,
    load_prompts,
    supervised_rows,
)
from safeladder.ladder.environments import SingleTurnSpec, build_environment
from safeladder.ladder.figures import distinct, figure_names, set_figures
from safeladder.ladder.filters.demonstrations import RungFilters
from safeladder.ladder.gate_keeper import check_figures, judge_gates, standing_start
from safeladder.ladder.gates import GateOutcome, failures
from safeladder.ladder.judges import CostWatch, judge_makers
from safeladder.ladder.log import RungLog
from safeladder.ladder.recipe import EvaluationSet, Recipe, RLRung, Rung, SFTRung, attempt_of
from safeladder.ladder.report_data import deliberation_answers
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import MemoryWatch
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.ladder.verifier_model import model_makers
from safeladder.ladder.verifier_trained import is_trained, plan_trained, train_planned
from safeladder.render import Renderer
from safeladder.train.progress import ProgressDisplay, make_progress
from safeladder.train.rl import RLRun, train_rl
from safeladder.train.rows import ShuffledRows
from safeladder.train.sft import SFTRun, train_sft
from safeladder.train.sinks import MetricSink, build_sinks
from safeladder.train.state import Checkpoints, LoopState
from safeladder.types import Group, Prompt, Trajectory
from safeladder.verifiers import build_verifiers, check_routes, close_verifiers


@dataclass(frozen=True)
class Climber:
    """What all rungs of one climb share."""

    recipe: Recipe
    run: RunDir
    judge: Judge
    sinks: Sequence[MetricSink]
    display: ProgressDisplay
    memory: MemoryWatch
    costs: CostWatch

    @staticmethod
    @contextmanager
    def open(recipe: Recipe, run: RunDir, memory: MemoryWatch) -> Iterator[Climber]:
        """Verifiers, sinks and display, closed at the end. Everything is checked before the first
        verifier trains, and environments are built here already, so that missing passages are no
        surprise after an hour of warm-up.

        Raises:
            ConfigError: a task that nobody would judge, a gate on a figure that there will not be.
            SafeLadderError: something cannot be built, or a verifier not be trained.
        """
        for spec in recipe.environments:
            build_environment(spec)
        plans = plan_trained(recipe.verifiers, run)
        makers = {**judge_makers(run.judges), **model_makers()}
        others = {key: spec for key, spec in recipe.verifiers.items() if not is_trained(spec)}
        with ExitStack() as stack:
            verifiers = build_verifiers(others, makers=makers)
            stack.callback(close_verifiers, verifiers)
            sinks = build_sinks(recipe.sinks, run.path)
            for sink in sinks:
                stack.callback(sink.close)
            climber = Climber(recipe, run, Judge(verifiers, recipe.objective, recipe.verify), sinks,
                              stack.enter_context(make_progress()), memory, CostWatch(verifiers))
            climber.check_tasks()
            climber.check_gates()
            trained = build_verifiers(train_planned(plans, run, climber.display), makers=makers)
            verifiers |= trained
            yield replace(climber, judge=replace(climber.judge, verifiers={
                name: verifiers[name] for name in recipe.verifiers}))

    def initial(self) -> Path | str:
        """The recipe's model before the first rung; an embedded one is made once and kept."""
        model = self.recipe.model
        if model.type == "checkpoint":
            return model.path
        folder = self.run.path / "model"
        if not folder.exists():
            save_checkpoint(initial_model(self.recipe), folder)
        return folder

    @cached_property
    def test_sets(self) -> Sequence[tuple[EvaluationSet, list[Prompt]]]:
        """The held-out prompts, loaded once."""
        return [(chosen, load_prompts(chosen.data)) for chosen in self.recipe.evaluation.sets]

    @cached_property
    def validation(self) -> list[Prompt]:
        """The prompts that choices may look at."""
        return load_prompts(self.recipe.evaluation.validation)

    def check_tasks(self) -> None:
        """Refuse tasks that nobody would judge: those of the evaluation under the recipe's
        objective, those that an RL rung trains on under that rung's own.

        Raises:
            ConfigError: the first such task, or an algorithm that cannot be built.
        """
        verifiers = self.recipe.verifiers
        for prompts in [*(prompts for _, prompts in self.test_sets), self.validation]:
            check_routes({prompt.task for prompt in prompts}, self.recipe.objective, verifiers)
        for rung in self.recipe.rungs:
            if isinstance(rung, RLRung) and self.run.rung_state(rung.name).get("status") != "done":
                build_algorithm(rung.algorithm)
                check_routes({prompt.task for prompt in load_prompts(rung.data)},
                             self.recipe.objective_of(rung), verifiers)

    def check_gates(self) -> None:
        """Refuse gates on figures that the evaluation will not have, and two figures of one name.

        Raises:
            ConfigError: the first such gate or figure.
        """
        names = figure_names(self.test_sets, self.recipe.evaluation.temperatures)
        check_figures(self.recipe, names)

    async def climb(self, rung: Rung, start: Path | str) -> None:
        """Run one rung from ``start`` (or its newest state) to its checkpoint, again if it fails a
        gate and may.
        """
        while not await self._attempt(rung, start):
            pass

    async def _attempt(self, rung: Rung, start: Path | str) -> bool:
        """Train and evaluate once; whether the rung is done, be it that it failed for good."""
        began = time.monotonic()
        before = self.run.rung_state(rung.name)
        attempt = int(before.get("attempt", 0))
        tried = attempt_of(rung, attempt, self.recipe.seed_of(rung))
        loaded = load_checkpoint(start, self.recipe)
        trainer = build_trainer(loaded, self.recipe.engine, self.run.path / "failures" / rung.name)
        work = RungWork(self, tried, loaded, trainer)
        state = await (work.sft(tried) if isinstance(tried, SFTRung) else work.rl(tried))
        figures = await work.evaluation() if rung.evaluate else {}
        outcomes = judge_gates(self.recipe, rung, self.run, figures)
        seconds = time.monotonic() - began
        spent = float(before.get("seconds", 0.0)) + seconds
        failed = failures(outcomes)
        if failed and rung.retry is not None and attempt < rung.retry.attempts:
            self._forget(work)
            self.run.update_rung(rung.name, attempt=attempt + 1, seconds=spent, failed_attempts=[
                *before.get("failed_attempts", []),
                {"steps": state.next_step, "gates": [o.model_dump() for o in outcomes]}])
            self.display.rung_finished(f"{seconds:.0f} s")
            self.display.message(f"{rung.name}: {failed[0].reason}; attempt {attempt + 2} of "
                                 f"{rung.retry.attempts + 1}")
            return False
        if not self.run.checkpoint(rung.name).exists():
            await trainer.save_checkpoint(self.run.checkpoint(rung.name))
        write_text(self.run.evaluation(rung.name), json.dumps(
            {name: asdict(figure) for name, figure in figures.items()}, indent=2))
        self.run.update_rung(
            rung.name, status="done", seconds=spent, steps=state.next_step,
            tokens_trained=state.tokens_trained, tokens_sampled=state.tokens_sampled,
            peak_rss_bytes=self.memory.peak_bytes, baseline=rung.baseline, start=str(start),
            evaluation_judges=self.costs.since_last(), **_gate_entries(outcomes, start))
        work.checkpoints.clear()
        self.display.rung_finished(f"{seconds:.0f} s")
        if failed:
            self.display.message(f"{rung.name} failed a gate: {failed[0].reason}; what follows "
                                 f"starts from {start}")
        return True

    def _forget(self, work: RungWork) -> None:
        """Remove what a failed attempt left, before the manifest says that there is another: a
        kill in between costs time, and mixes nothing.
        """
        work.checkpoints.clear()
        for path in self.run.traces.glob(f"{work.rung.name}-train-step*.parquet"):
            path.unlink()


def _gate_entries(outcomes: Sequence[GateOutcome], start: Path | str) -> dict[str, Any]:
    """What the manifest says of a rung that has gates."""
    failed = failures(outcomes)
    if not outcomes:
        return {}
    entries = {"gates": [outcome.model_dump() for outcome in outcomes], "accepted": not failed}
    return entries if not failed else {
        **entries, "failure": "; ".join(outcome.reason for outcome in failed), "kept": str(start)}


@dataclass(frozen=True)
class RungWork:
    """What the loop of one rung is made of."""

    climber: Climber
    rung: Rung
    loaded: LoadedModel
    trainer: Trainer

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer of the rung's model."""
        return build_renderer(self.loaded, self.climber.recipe)

    @cached_property
    def collect(self) -> Collector:
        """Rollout and verification."""
        rung = self.rung
        environment = rung.environment if isinstance(rung, RLRung) else SingleTurnSpec()
        return Collector(self.renderer, self.judge, build_environment(environment))

    @cached_property
    def judge(self) -> Judge:
        """Of the training: the climb's verifiers with the rung's objective. What an objective
        learns begins anew on every rung.
        """
        return replace(self.climber.judge,
                       objective=self.climber.recipe.objective_of(self.rung)
                       .model_copy(deep=True))

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The rung's resumable states."""
        return Checkpoints(self.climber.run.state(self.rung.name), self.rung.settings.save_every,
                           carried={"objective": self.judge.objective})

    @property
    def seed(self) -> int:
        """The rung's seed."""
        return self.climber.recipe.seed_of(self.rung)

    def log(self, total_steps: int | None, temperature: float = 1.0) -> RungLog:
        """Where the rung reports."""
        climber = self.climber
        return RungLog(self.rung.name, climber.run, climber.sinks, climber.display, total_steps,
                       temperature, climber.costs)

    async def sft(self, rung: SFTRung) -> LoopState:
        """Supervised."""
        prompts = load_prompts(traced_answers(
            rung.data, self.climber.run.traces,
            {other.name: other.data for other in self.climber.recipe.rungs}))
        if rung.filters:
            prompts = await self._filtered(rung, prompts)
        return await train_sft(SFTRun(
            name=rung.name, trainer=self.trainer,
            rows=ShuffledRows(supervised_rows(prompts, self.renderer), self.seed),
            settings=rung.settings, checkpoints=self.checkpoints,
            log=self.log(rung.settings.num_steps),
            validation=supervised_rows(load_prompts(rung.validation), self.renderer),
            evaluate=self._validate if self.climber.validation else None))

    async def _filtered(self, rung: SFTRung, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The demonstrations that pass the rung's filters; the report stays in its folder."""
        run = self.climber.run
        filters = RungFilters(rung.name, rung.filters, run.filters(rung.name),
                              self.judge.verifiers, self.judge.policy, run.judges)
        kept = await filters.keep(prompts)
        self.climber.display.message(
            f"{rung.name}: {len(kept)} of {len(prompts)} demonstrations passed "
            f"{len(rung.filters)} filters: {filters.report.with_suffix('.html')}")
        return kept

    async def rl(self, rung: RLRung) -> LoopState:
        """Reinforcement learning."""
        algorithm = build_algorithm(rung.algorithm)
        stream = build_stream(rung.data, rung.curriculum, self.seed)
        check_routes({prompt.task for prompt in stream.prompts}, self.judge.objective,
                     self.judge.verifiers)
        reference = None
        if "ref" in algorithm.needs:
            reference = await self._reference(rung)
        return await train_rl(RLRun(
            name=rung.name, seed=self.seed, trainer=self.trainer, data=stream,
            collect=self.collect, objective=self.judge.objective, algorithm=algorithm,
            reference=reference,
            settings=rung.settings, stop_token_ids=self.renderer.stop_token_ids,
            checkpoints=self.checkpoints,
            log=self.log(rung.settings.num_steps, rung.settings.temperature),
            evaluate=self._validate if self.climber.validation else None))

    async def _reference(self, rung: RLRung) -> Sampler:
        """The frozen policy the KL compares with: the rung's start, or the checkpoint named."""
        if rung.reference is None:
            return await self.trainer.frozen_sampler()
        other = build_trainer(load_checkpoint(rung.reference, self.climber.recipe),
                              self.climber.recipe.engine, self.climber.run.path / "failures")
        return await other.frozen_sampler()

    async def _validate(self, sampler: Sampler, _step: int) -> Mapping[str, float]:
        """Greedy figures on the validation prompts."""
        spec = self.climber.recipe.evaluation.validation_environment
        trajectories = await self._judged(sampler, build_environment(spec),
                                          self.climber.validation, self._params(0.0, 0))
        estimates = evaluation_metrics(trajectories)
        if spec.type == "search":
            estimates |= deliberation_metrics(trajectories)
        return {name: e.value for name, e in estimates.items() if e.value is not None}

    async def evaluation(self) -> dict[str, Estimate]:
        """Every set at every temperature; traces are written beside."""
        figures: dict[str, Estimate] = {}
        for number, (chosen, prompts) in enumerate(self.climber.test_sets):
            environment = build_environment(chosen.environment)
            for temperature in self.climber.recipe.evaluation.temperatures:
                sampler = await self.trainer.sampler()
                trajectories = await self._judged(sampler, environment, prompts,
                                                  self._params(temperature, number))
                write_traces(self.climber.run.traces,
                             TraceKey(self.rung.name, -1, chosen.name, temperature), trajectories)
                figures = distinct(figures, set_figures(chosen, trajectories, temperature))
                if chosen.environment.type == "search":
                    figures = distinct(figures, self._matched(trajectories, chosen, temperature))
        return figures

    def _matched(
        self, trajectories: Sequence[Trajectory], chosen: EvaluationSet, temperature: float,
    ) -> dict[str, Estimate]:
        """False certainty of the rung this one is compared with (the one it started from, unless
        ``compare_with`` names another), at as many certain answers, and how far this one is from
        it; nothing where that rung was not evaluated.
        """
        run = self.climber.run
        other = self.rung.compare_with or standing_start(self.climber.recipe, self.rung, run)
        if other is None or not (
                run.traces / TraceKey(other, -1, chosen.name, temperature).filename).exists():
            return {}
        baseline = deliberation_answers(run.path, other, chosen.name, temperature)
        ours, ending = [answer_of(t) for t in trajectories], suffix(chosen.suffix, temperature)
        return {f"false_certain_baseline_matched{ending}":
                false_certain_baseline_matched(ours, baseline),
                f"false_certain_minus_matched{ending}":
                false_certain_minus_matched(ours, baseline)}

    async def _judged(
        self, sampler: Sampler, environment: Environment, prompts: Sequence[Prompt],
        params: SamplingParams,
    ) -> list[Trajectory]:
        """Every rung is judged alike: by the recipe's objective, as it begins."""
        judge = self.climber.judge
        judged = await evaluate(sampler, self.renderer, environment, prompts, params, judge)
        check_failures([Group(t.prompt, [t]) for t in judged], judge.policy)
        check_judged(judged, judge.policy)
        return judged

    def _params(self, temperature: float, stream: int) -> SamplingParams:
        """Evaluation sampling; its seed does not depend on the recipe's, so that runs compare."""
        return SamplingParams(
            max_tokens=self.climber.recipe.evaluation.max_tokens, temperature=temperature,
            stop_token_ids=self.renderer.stop_token_ids, seed=stream)
