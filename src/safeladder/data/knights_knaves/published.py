"""The rows of the public Knights and Knaves files, rebuilt to the letter.

Two public programs made them: the generator of arXiv 2410.23123 (columns ``quiz`` to ``index``) and
Logic-RL's preprocessing (arXiv 2502.14768; github Unakar/Logic-RL 9d2c457,
``examples/data_preprocess/kk.py``; columns ``data_source`` to ``extra_info``, the verl schema).

Problem indices of the splits:

========  ==========  ===========  ==========================================================
people    train       test         eval (what the papers' accuracy tables are measured on)
========  ==========  ===========  ==========================================================
3 to 7    100..999    1000..1099   0..99, as published by Logic-RL
8         100..999    1000..1099   0..99; Logic-RL published no file, the same rule is applied
2         100..299    0..99        0..99, the same rows: only 300 problems were ever published
========  ==========  ===========  ==========================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from safeladder.data.knights_knaves.generate import PUBLISHED_SEED, Puzzle, published_puzzles
from safeladder.data.knights_knaves.solver import search
from safeladder.data.knights_knaves.text import (
    Wording,
    solution_list,
    solution_text,
    word_puzzle,
    write_chain_of_thought,
)
from safeladder.errors import ConfigError
from safeladder.files import atomic_file

Split = Literal["train", "test", "eval"]
Template = Literal["instruct", "base"]
Row = dict[str, Any]

_THINK_THEN_ANSWER = (
    "first thinks about the reasoning process in the mind and then provides the user with the ")
_STATE_ROLES = (
    "After thinking, when you finally reach a conclusion, clearly state the identity of each "
    "character within <answer> </answer> tags. ")
_TAGS_EXAMPLE = (
    "tags, respectively, i.e., <think> reasoning process here </think>"
    "<answer> answer here </answer>.")
SYSTEM_PROMPT = (
    f"You are a helpful assistant. The assistant {_THINK_THEN_ANSWER}answer. The reasoning process "
    f"and answer are enclosed within <think> </think> and<answer> </answer> {_TAGS_EXAMPLE}  Now "
    f"the user asks you to solve a logical reasoning problem. {_STATE_ROLES}"
    "i.e., <answer> (1) Zoey is a knight\n(2) ... </answer>.\n")
_BASE_PROMPT = (
    f"The user asks a question, and the Assistant solves it.The assistant {_THINK_THEN_ANSWER}"
    "final answer. The reasoning process and answer are enclosed within <think> </think> and "
    f"<answer> </answer> {_TAGS_EXAMPLE} Now the user asks you to solve a logical reasoning "
    f"problem. {_STATE_ROLES}List the identity of each person one by one, for example, <answer> "
    "(1) Zoey is a knight\n(2) Oliver is a knight\n(3)... </answer>.")


def split_indices(people: int, split: str) -> range:
    """The problem indices of a split (table above).

    Raises:
        ConfigError: people outside 2..8, or another split.
    """
    if not 2 <= people <= 8:
        raise ConfigError(f"people {people}: the published puzzles have 2 to 8 people")
    if split not in get_args(Split):
        raise ConfigError(f"split {split!r}: choose one of {', '.join(get_args(Split))}")
    if split == "train":
        return range(100, 300 if people == 2 else 1000)
    return range(1000, 1100) if split == "test" and people != 2 else range(100)


def render_prompt(quiz: str, template: Template = "instruct") -> str:
    """The whole chat string of Logic-RL: ChatML for instruct models, plain text for base ones.

    Both end in a pre-filled ``<think>``; no chat template may be applied to them again.
    """
    if template == "base":
        return f"{_BASE_PROMPT}\n\nUser:{quiz}\nAssistant: <think>"
    return (f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{quiz}\n<|im_end|>\n"
            "<|im_start|>assistant\n<think>")


def puzzle_columns(
    puzzle: Puzzle, index: int, wording: Wording | None = None, text_seed: int | None = None
) -> Row:
    """The eleven columns of the public generator for problem ``index``.

    ``text_seed`` draws names and sayings; None: as published, 1234 + index.
    """
    seed = PUBLISHED_SEED + index if text_seed is None else text_seed
    worded = word_puzzle(puzzle.statements, seed, wording)
    thought = write_chain_of_thought(puzzle.statements, worded, search(puzzle.statements))
    return {
        "quiz": worded.quiz,
        "names": list(worded.names),
        "knight_knave": worded.roles.columns(),
        "solution": list(puzzle.solution),
        "solution_text": solution_text(puzzle.solution, worded),
        "solution_text_format": solution_list(puzzle.solution, worded),
        "cot_head": thought.head,
        "cot_repeat_steps": list(thought.steps),
        "cot_foot": thought.foot,
        "statements": str(puzzle.statements),
        "index": index,
    }


def verl_columns(row: Row, split: str, number: int, template: Template = "instruct") -> Row:
    """The five columns that Logic-RL adds; ``number`` counts the rows of the split from 0."""
    return {
        "data_source": "kk_logic",
        "prompt": [{"content": render_prompt(row["quiz"], template), "role": "user"}],
        "ability": "logic",
        "reward_model": {
            "ground_truth": {"solution_text_format": row["solution_text_format"],
                             "statements": row["statements"]},
            "style": "rule",
        },
        "extra_info": {"index": number, "split": split},
    }


def published_rows(people: int, split: str, template: Template = "instruct") -> Iterator[Row]:
    """The rows of one public file, all sixteen columns in their order.

    Raises:
        ConfigError: as :func:`split_indices` says.
    """
    indices = split_indices(people, split)
    puzzles = published_puzzles(people)
    for number, index in enumerate(indices):
        row = puzzle_columns(puzzles[index], index)
        yield row | verl_columns(row, split, number, template)


def write_knights_knaves(
    people: int, split: str, out: Path | str, template: Template = "instruct"
) -> int:
    """Write one public file to ``out`` and return the number of rows.

    ``.parquet`` gives the schema of Logic-RL's files, ``.jsonl`` the same rows as JSON lines.

    Raises:
        ConfigError: wrong people or split, or another suffix.
        StorageError: ``out`` cannot be written.
    """
    out = Path(out)
    if out.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"{out}: the name must end in .parquet or .jsonl")
    rows = list(published_rows(people, split, template))
    with atomic_file(out) as partial:
        if out.suffix == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            partial.write_text("".join(lines), encoding="utf-8")
        else:
            _write_parquet(rows, partial)
    return len(rows)


def _write_parquet(rows: list[Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Inferred types follow the rows; every column is full, so nothing stays untyped.
    pq.write_table(pa.Table.from_pylist(rows), path)
