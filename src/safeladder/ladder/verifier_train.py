"""``safeladder verifier train``: a recipe's verifier is trained, written, and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safeladder.errors import StorageError
from safeladder.files import atomic_folder
from safeladder.ladder.verifier_recipe import LightVerifierRecipe, load_verifier_recipe


def train_verifier(
    name: str, overrides: Sequence[str], out: Path, say: Callable[[str], None] = print,
) -> Path:
    """Train the verifier of a recipe into the folder ``out``; return it.

    Raises:
        ConfigError: the recipe is wrong; DataError: its rows are; StorageError: ``out`` is there
            already or cannot be written; MissingExtra: a package is not installed.
    """
    recipe = load_verifier_recipe(name, overrides)
    if out.exists():
        raise StorageError(f"{out} is there already: remove it or choose another folder")
    if isinstance(recipe, LightVerifierRecipe):
        from safeladder.ladder.verifier_light import accuracy_of, train_light

        with atomic_folder(out) as folder:
            model = train_light(recipe, folder)
        say(f"{out}: {model.facts['rows']} rows, {len(model.vocabulary)} features, "
            f"cross-validated accuracy {model.facts['cross_validated_accuracy']:.1%}")
        rows = [row for source in recipe.test for row in source.load()]
        if rows:
            say(f"test: {len(rows)} rows, accuracy {accuracy_of(model, rows):.1%} (figures with "
                f"intervals: safeladder verifier eval {out} DATA)")
        return out
    from safeladder.ladder.verifier_model import train_model_verifier

    metrics = train_model_verifier(recipe, out)
    say(f"{out}: test {metrics.get('test')}")
    return out
