"""Knights and Knaves puzzles as Prompts."""

from __future__ import annotations

from itertools import islice
from typing import Literal

import numpy as np

from safeladder.data.knights_knaves.generate import PUBLISHED_SEED, Grammar
from safeladder.data.knights_knaves.perturb import Perturbation, published_perturbed_rows
from safeladder.data.knights_knaves.published import (
    SYSTEM_PROMPT,
    Row,
    Split,
    published_rows,
    puzzle_columns,
    render_prompt,
)
from safeladder.data.knights_knaves.statements import count_operators, parse_statements
from safeladder.data.knights_knaves.structure import structure_key
from safeladder.errors import ConfigError
from safeladder.types import Message, Prompt

PromptTemplate = Literal["chat", "instruct", "base"]


def row_prompt(
    row: Row, name: str, template: PromptTemplate, demonstration: bool = False
) -> Prompt:
    """One row of the public generator as a Prompt.

    ``reference`` is the public ``ground_truth`` (``solution_text_format`` and ``statements``).
    ``meta`` holds people, index, names, solution, structure, operators and steps (the difficulty).
    A demonstration ends with the assistant's message: chain of thought and answer.
    """
    statements = parse_statements(row["statements"])
    meta = {
        "people": len(statements), "index": row["index"], "names": row["names"],
        "solution": row["solution"], "structure": structure_key(statements),
        "operators": sum(map(count_operators, statements)),
        "steps": len(row["cot_repeat_steps"]),
    }
    messages = [Message("system", SYSTEM_PROMPT.strip()), Message("user", row["quiz"])]
    if demonstration:
        thought = " ".join((row["cot_head"], *row["cot_repeat_steps"], row["cot_foot"]))
        answer = row["solution_text_format"]
        messages.append(Message(
            "assistant", f"<think>{thought}</think>\n<answer>{answer}</answer>"))
    return Prompt(
        id=f"{name}:{row['index']}",
        messages=tuple(messages),
        reference={"solution_text_format": row["solution_text_format"],
                   "statements": row["statements"]},
        source="kk_logic",
        task="logic",
        meta=meta,
        rendered=None if template == "chat" else render_prompt(row["quiz"], template),
    )


def published_prompts(
    people: int, split: Split, template: PromptTemplate = "chat",
    perturbation: Perturbation | None = None, demonstrations: bool = False,
) -> list[Prompt]:
    """The published puzzles of a split, or their perturbed twins.

    Raises:
        ConfigError: no such split.
    """
    name = f"kk{people}/{perturbation or split}"
    rows = (published_rows(people, split) if perturbation is None
            else published_perturbed_rows(people, split, perturbation))
    return [row_prompt(row, name, template, demonstrations) for row in rows]


def fresh_prompts(
    people: int, size: int, seed: int, width: int = 2, template: PromptTemplate = "chat",
    demonstrations: bool = False,
) -> list[Prompt]:
    """Newly drawn puzzles, numbered from 0, in the published grammar and wording.

    Raises:
        ConfigError: the seed of the published puzzles, which hold the test split.
        DataError: there are not that many puzzles of so few people.
    """
    if seed == PUBLISHED_SEED:
        raise ConfigError(f"seed {seed} draws the published puzzles, test split included; "
                          "use another, or a source of type knights_knaves")
    # Streams of (seed, people, ...) are none of the single numbers of the published data.
    puzzles = Grammar(people, width=width).puzzles(np.random.default_rng((seed, people)))
    name = f"kk{people}/fresh-{seed}"
    prompts = []
    for index, puzzle in enumerate(islice(puzzles, size)):
        text_seed = int(np.random.default_rng((seed, people, index)).integers(2**62))
        row = puzzle_columns(puzzle, index, text_seed=text_seed)
        prompts.append(row_prompt(row, name, template, demonstrations))
    return prompts
