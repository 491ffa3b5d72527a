"""Verifiers that a climb trains itself: checked at its start, trained before its first rung.

A recipe's ``verifiers`` may hold ``{type: trained, recipe: NAME, overrides: {a.b: value}}``. The
verifier is trained into ``<run>/verifiers/<name>``, which appears whole or not at all, measured on
its own test rows, and opened as its folder would be. A run that finds the folder uses it, so a run
that was killed at any moment goes on to the same numbers.
"""

from __future__ import annotations

import gc
import importlib.util
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safeladder.config import read_yaml, validate
from safeladder.engine.threads import torch_threads
from safeladder.errors import ConfigError, DataError, MissingExtra
from safeladder.files import atomic_folder, write_text
from safeladder.ladder.report_charts import figure_text
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import Figure, TrainedVerifier, read_trained
from safeladder.ladder.verifier_eval import agreement
from safeladder.ladder.verifier_light import train_light
from safeladder.ladder.verifier_model import train_into
from safeladder.ladder.verifier_model_recipe import MicroworldResponses
from safeladder.ladder.verifier_recipe import (
    LightVerifierRecipe,
    VerifierRecipe,
    load_verifier_recipe,
)
from safeladder.ladder.verifier_spec import OpenedVerifier, makers
from safeladder.train.progress import ProgressDisplay
from safeladder.verifiers.labels import canonical
from safeladder.verifiers.registry import build_verifier, check_spec, close_verifiers
from safeladder.verifiers.trained import TrainedSpec

FACTS = "trained.json"
"""What the run says of the verifier (:class:`TrainedVerifier`), beside the verifier's own files."""
_LOOKED_AT = 16
"""Rows of a source of the microworld whose labels are looked at before anything trains."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Plan:
    """One verifier that is to be trained."""

    name: str
    named: str
    """The recipe, as the climb's recipe names it."""
    recipe: VerifierRecipe
    folder: Path
    """Shared by verifiers of one name that differ only in how they are opened."""
    opened: Mapping[str, Any]
    """What it is opened with."""


def is_trained(spec: Mapping[str, Any]) -> bool:
    """Whether the climb trains this verifier."""
    return spec.get("type") == "trained"


def plan_trained(specs: Mapping[str, Mapping[str, Any]], run: RunDir) -> list[Plan]:
    """Check everything that can be checked without training.

    Raises:
        ConfigError: a wrong key or recipe, classes that do not suit, or the run's folder holds a
            verifier of another recipe.
        DataError: rows without labels, or with labels that are none of the classes.
        MissingExtra: a package is not installed.
    """
    plans: list[Plan] = []
    for name, spec in specs.items():
        if is_trained(spec):
            plan = _plan(name, spec, run)
            same = [other.folder for other in plans if other.recipe == plan.recipe]
            if same:
                plan = replace(plan, folder=same[0],
                               opened={**plan.opened, "path": str(same[0])})
            plans.append(plan)
    return plans


def _plan(name: str, raw: Mapping[str, Any], run: RunDir) -> Plan:
    where = f"verifiers.{name}"
    spec = check_spec(raw, where)
    assert isinstance(spec, TrainedSpec)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a trained verifier's name is a folder's: letters, digits, "
                          "'_', '-' and '.'")
    more = dict(spec.model_extra or {})
    if "path" in more:
        raise ConfigError(f"{where}: unknown key 'path': the climb trains it into its own folder")
    try:
        recipe = load_verifier_recipe(spec.recipe, spec.overrides)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in str(error).splitlines())
                          ) from None
    folder = run.verifier(name)
    opened = {"name": raw.get("name", name), **_device(recipe), **more, "type": recipe.type,
              "path": str(folder)}
    _check_classes(check_spec(opened, where), recipe, where)
    if folder.exists():
        _check_same(recipe, folder, where)
    else:
        _check_trainable(recipe, where)
    return Plan(name, spec.recipe, recipe, folder, opened)


def _device(recipe: VerifierRecipe) -> dict[str, str]:
    """Where it is measured and, unless the climb names another, opened: where it was trained."""
    return {} if isinstance(recipe, LightVerifierRecipe) else {"device": recipe.engine.device}


def _check_classes(opened: Any, recipe: VerifierRecipe, where: str) -> None:
    """A table of scores or a rubric of the climb's own names the classes that are trained."""
    rubric = getattr(opened, "rubric", None)
    for key, classes in (("rubric", None if rubric is None else rubric.classes),
                         ("scores", getattr(opened, "scores", None))):
        if classes is not None and set(classes) != set(recipe.classes):
            raise ConfigError(f"{where}.{key} has the classes {', '.join(classes)}, but the "
                              f"verifier's recipe trains {', '.join(recipe.classes)}")


def _check_trainable(recipe: VerifierRecipe, where: str) -> None:
    """Its package is there, and every label is one of the classes; of the microworld a few rows are
    looked at, for all rows of a kind have labels of one set.
    """
    if isinstance(recipe, LightVerifierRecipe) and importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "light", f"{where}: training a light verifier")
    sources = [*recipe.train, *getattr(recipe, "validation", ()), *recipe.test]
    for source in sources:
        few = source
        if isinstance(source, MicroworldResponses):
            few = source.model_copy(update={"count": min(source.count, _LOOKED_AT)})
        for row in few.load():
            try:
                canonical(row.label or "", recipe.classes)
            except DataError as error:
                raise DataError(f"{where}, recipe {recipe.name!r}, row {row.prompt.id!r}: "
                                f"{error}") from None


def _check_same(recipe: VerifierRecipe, folder: Path, where: str) -> None:
    path = folder / "recipe.yaml"
    try:
        found: Any = validate(type(recipe), read_yaml(path), str(path))
    except ConfigError:
        found = None
    if found != recipe:
        raise ConfigError(f"{where}: {folder} was trained with another recipe (see its "
                          "recipe.yaml): begin a new run, or remove the folder to train anew")


# ---------------------------------------------------------------- training

def train_planned(
    plans: Sequence[Plan], run: RunDir, display: ProgressDisplay,
) -> dict[str, Mapping[str, Any]]:
    """Train what is not trained yet; name -> what to open. The manifest says what each cost.

    Raises:
        SafeLadderError: as :func:`safeladder.ladder.verifier_train.train_verifier`.
    """
    trained: dict[Path, TrainedVerifier] = {}
    for plan in plans:
        if plan.folder in trained:
            facts = trained[plan.folder].model_copy(update={"name": plan.name, "seconds": 0.0})
        elif plan.folder.exists():
            facts = read_trained(plan.folder / FACTS)
            display.message(f"verifiers.{plan.name}: trained already ({_line(facts)})")
        else:
            facts = _train(plan, run, display)
        trained.setdefault(plan.folder, facts)
        run.update_verifier(plan.name, facts.model_dump(mode="json"))
    return {plan.name: plan.opened for plan in plans}


def _train(plan: Plan, run: RunDir, display: ProgressDisplay) -> TrainedVerifier:
    recipe, label = plan.recipe, f"verifiers.{plan.name}"
    started = time.perf_counter()
    display.rung_started(label, _total_steps(recipe))
    with atomic_folder(plan.folder) as folder:
        rows = _rows_trained_on(recipe, folder, display, run.path / "failures" / label)
        gc.collect()  # the trainer's state goes before the climb's comes
        facts = _facts(plan, run, folder, rows)
        facts = facts.model_copy(update={"seconds": time.perf_counter() - started})
        write_text(folder / FACTS, facts.model_dump_json(indent=2) + "\n")
    display.rung_finished(_line(facts))
    return facts


def _total_steps(recipe: VerifierRecipe) -> int | None:
    """Of all stages; None where one ends by its tokens, or nothing is trained in steps."""
    if isinstance(recipe, LightVerifierRecipe):
        return None
    steps = [stage.settings.num_steps for stage in recipe.stages]
    return None if None in steps else sum(count or 0 for count in steps)


def _rows_trained_on(
    recipe: VerifierRecipe, folder: Path, display: ProgressDisplay, failures: Path,
) -> int:
    """Train into the folder; how many rows there were."""
    if isinstance(recipe, LightVerifierRecipe):
        return int(train_light(recipe, folder).facts["rows"])
    with torch_threads(recipe.engine.threads):
        metrics = train_into(folder, recipe, AllStages(display), failures)
    return int(metrics["rows"]["train"])


def _facts(plan: Plan, run: RunDir, folder: Path, rows: int) -> TrainedVerifier:
    """The figures on the recipe's test rows, of the verifier as it was trained."""
    recipe = plan.recipe
    facts = TrainedVerifier(
        name=plan.name, kind=recipe.type, recipe=plan.named, rows=rows,
        folder=str(plan.folder.relative_to(run.path)), seconds=0.0)
    test = [row for source in recipe.test for row in source.load()]
    if not test:
        return facts
    spec = {"type": recipe.type, "name": plan.name, "path": str(folder), **_device(recipe)}
    verifier = build_verifier(spec, f"verifiers.{plan.name}", makers(recipe.type))
    try:
        found = agreement(OpenedVerifier(verifier, spec), test)
    finally:
        close_verifiers({plan.name: verifier})
    if found.figures is None:
        return facts.model_copy(update={
            "accuracy": Figure(value=None, n=0, ci95=None, unjudged=found.abstained)})
    accuracy = replace(found.figures.accuracy, unjudged=found.abstained)
    return facts.model_copy(update={"accuracy": Figure(**asdict(accuracy)),
                                    "ece": Figure(**asdict(found.figures.ece))})


def _line(facts: TrainedVerifier) -> str:
    """``generative, 18,000 rows, test accuracy 81.9% [79.6, 84.2], ECE 4.1% [3.0, 6.2]``."""
    figures = (("test accuracy", facts.accuracy), ("ECE", facts.ece))
    return ", ".join([facts.kind, f"{facts.rows:,} rows", *(
        f"{name} {figure_text(figure)}" for name, figure in figures if figure is not None)])


class AllStages:
    """A display that shows the stages of one training as one rung, which its caller begins."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display
        self._before, self._done = 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The display is the caller's."""

    def rung_started(self, name: str, total_steps: int | None, unit: str = "step",
                     first_step: int = 0) -> None:
        """A stage begins; its steps are counted on from those before."""
        self._before = self._done

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step of the stage, counted over all stages."""
        self._done = self._before + step + 1
        self._display.step(self._done - 1, metrics)

    def rung_finished(self, text: str = "") -> None:
        """The caller says how the training ended."""

    def message(self, text: str) -> None:
        """A line of its own."""
        self._display.message(text)
