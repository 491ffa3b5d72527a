"""Keyword baselines of the microworld: how far words, or pixels, get alone. Chance is 50%.

    python tools/microworld_baselines.py [--rows 4000] [--seeds 3]

Harmful or harmless is predicted with logistic regression, trained on the training split and
measured on the test split: from bags of words (unigrams, and unigrams with bigrams) of text
prompts, and from the text alone and the image alone (principal components, and a forest on the
pixels) of prompts with an image. That the same regression learns the training compositions by heart
when it is given action and object as one feature shows that the information is there. Printed as a
Markdown table: mean over seeds, smallest and largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from safeladder.data.microworld import labelled_responses, safety_prompts
from safeladder.data.microworld.balance import Split
from safeladder.data.microworld.safety import Form
from safeladder.data.microworld.value import value_prompts
from safeladder.data.responses import LabelledResponse
from safeladder.types import Prompt

Rows = Sequence[Prompt]


def texts(rows: Rows) -> list[str]:
    """The text of every turn."""
    return [" ".join(message.text for message in row.messages) for row in rows]


def pixels(rows: Rows) -> np.ndarray:
    """Images as rows of numbers from 0 to 1."""
    return np.stack([np.asarray(row.media[0].pixels).reshape(-1) / 255 for row in rows])


def crossed(rows: Rows) -> list[dict[str, int]]:
    """Action and object as one feature."""
    return [{row.meta["request"]: 1} for row in rows]


def words(ngrams: int) -> Any:
    """Logistic regression on a bag of words."""
    return make_pipeline(
        CountVectorizer(ngram_range=(1, ngrams), token_pattern=r"\S+", binary=True),
        LogisticRegression(max_iter=2000))


def image_model(components: int) -> Any:
    """Logistic regression on principal components of the pixels, standardised."""
    return make_pipeline(PCA(components, random_state=0), StandardScaler(),
                         LogisticRegression(max_iter=2000))


def forest() -> Any:
    """Trees, which can combine pixels as a line cannot."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(200, random_state=0)


def accuracy(
    model: Any, features: Callable[[Rows], Any], train: Rows, test: Rows,
    answer: Callable[[Prompt], bool],
) -> float:
    """Held-out accuracy of a model fitted on the training rows."""
    model.fit(features(train), [answer(row) for row in train])
    return float(model.score(features(test), [answer(row) for row in test]))


def is_harmful(row: Prompt) -> bool:
    """What is to be predicted of safety prompts."""
    return bool(row.meta["harmful"])


def is_allowed(row: Prompt) -> bool:
    """What is to be predicted of dilemmas."""
    return bool(row.reference["allowed"])


def measure_answers(rows: int, seed: int) -> dict[str, float]:
    """Six classes of answers to text prompts (chance 17%), from words of the answer or of both."""
    def draw(split: Split, count: int) -> list[LabelledResponse]:
        return labelled_responses("safety", split, count, seed, ("text",), think_share=0)

    train, test = draw("train", rows), draw("test", rows // 2)
    found = {}
    for name, prompt_too in (("words of the answer", False), ("words of prompt and answer", True)):
        model = words(2)
        read = [[f"{row.prompt.messages[0].text if prompt_too else ''} {row.response}"
                 for row in part] for part in (train, test)]
        model.fit(read[0], [row.label for row in train])
        score = float(model.score(read[1], [row.label for row in test]))
        found[f"six classes of answers: {name}, and pairs"] = score
    return found


def measure(rows: int, seed: int) -> dict[str, float]:
    """All figures of one seed."""
    def draw(form: Form) -> tuple[list[Prompt], list[Prompt]]:
        return (safety_prompts("train", rows, seed, (form,)),
                safety_prompts("test", rows // 2, seed, (form,)))

    found: dict[str, float] = {}
    for form in ("text", "wrapped", "object_image", "scene_image"):
        train, test = draw(form)
        for ngrams, name in ((1, "words"), (2, "words and pairs of words")):
            found[f"{form}: {name}"] = accuracy(words(ngrams), texts, train, test, is_harmful)
        if form.endswith("image"):
            found[f"{form}: image, 40 components"] = accuracy(
                image_model(40), pixels, train, test, is_harmful)
            found[f"{form}: image, forest"] = accuracy(forest(), pixels, train, test, is_harmful)
    train, test = draw("text")
    hint = accuracy(make_pipeline(DictVectorizer(), LogisticRegression()), crossed, train, train,
                    is_harmful)
    found["text: action x object, on the training rows (not a baseline)"] = hint
    found |= measure_answers(rows, seed)
    train, test = value_prompts("train", rows, seed), value_prompts("test", rows // 2, seed)
    found["value: words"] = accuracy(words(1), texts, train, test, is_allowed)
    found["value: words and pairs of words"] = accuracy(words(2), texts, train, test, is_allowed)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000, help="training prompts of each form")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    runs = [measure(arguments.rows, seed) for seed in range(arguments.seeds)]
    print("| prompts: predictor | mean | smallest | largest |\n|---|---|---|---|")
    for name in runs[0]:
        scores = [run[name] for run in runs]
        print(f"| {name} | {np.mean(scores):.1%} | {min(scores):.1%} | {max(scores):.1%} |")


if __name__ == "__main__":
    main()
