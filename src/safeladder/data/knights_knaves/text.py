"""Puzzles in English: the wording, the solution, and the chain of thought of the public data.

The name and template lists and the sentences are part of the data format of arXiv 2410.23123
(github AlphaPav/mem-kk-logic 35385cf, MIT licence): rows are rebuilt to the letter from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from safeladder.data.knights_knaves.solver import Step, Trace, search
from safeladder.data.knights_knaves.statements import LEAVES, Assignment, Statement, Statements
from safeladder.errors import DataError

_COMMON = (
    "Emma Liam Olivia Noah Ava Ethan Sophia Mason Isabella William Mia James Charlotte Benjamin "
    "Amelia Lucas Harper Henry Evelyn Alexander Abigail Michael Emily Daniel Elizabeth Jacob "
    "Sofia Logan Avery Jackson Ella Sebastian Scarlett Jack Grace Aiden Chloe Owen Victoria "
    "Samuel Riley Matthew Aria Joseph Lily Luke Aurora David Zoey Oliver Penelope")
_UNCOMMON = (
    "Zephyr Elowen Caspian Isolde Osiris Vesper Thaddeus Ondine Lysander Xanthe Oberon Calliope "
    "Leander Eulalia Florian Forsythe Nephele Peregrine Ianthe Lazarus Elodie Cillian Ottoline "
    "Evander Saffron Caius Zora Cyprian Amaryllis Theron Perdita Ignatius Zephyrine Balthazar "
    "Melisande Zinnia Sylvester Cosima Leocadio Percival Oceane Evanthe Zenobia Eurydice Quillan "
    "Aeronwen Thorsten Xiomara Zephyrus Ysolde")
COMMON_NAMES = tuple(_COMMON.split())
UNCOMMON_NAMES = tuple(_UNCOMMON.split())
SAYINGS = (
    "{name} said that {content}.",
    "{name} told you that {content}.",
    '{name} said, "{content}."',
    '{name} stated, "{content}".',
    'According to {name}, "{content}".',
    'In {name}\'s words: "{content}".',
    '{name} remarked, "{content}".',
    '"{content}," {name} declared.',
    '{name} was heard saying, "{content}".',
    "{name} expressed that {content}.",
    '"{content}" - {name}.',
    'As {name} put it, "{content}".',
    '{name} asserted: "{content}".',
    '"{content}," {name} mentioned.',
    '{name} commented, "{content}".',
    'In a statement by {name}: "{content}".',
    '{name} noted, "{content}".',
    '"{content}," {name} claimed.',
)
KNIGHT_KNAVE = ("a knight", "a knave")
ROLE_PAIRS = (
    ("a pioneer", "a laggard"), ("a saint", "a sinner"), ("a hero", "a villain"),
    ("an angel", "a devil"), ("an altruist", "an egoist"), ("a sage", "a fool"),
)


@dataclass(frozen=True)
class Wording:
    """How a puzzle is worded; each departure is one of the public language perturbations."""

    uncommon_names: bool = False
    """Names hardly seen in text (Zephyr, Elowen, ...)."""
    other_roles: bool = False
    """One of six other pairs for knight and knave (saint and sinner, ...)."""
    flipped_roles: bool = False
    """Knaves tell the truth, and knights lie."""
    reordered: bool = False
    """The people speak in another order than they are introduced in."""


class Roles(NamedTuple):
    """The word, with its article, for the truthful and for the lying."""

    truthful: str
    lying: str

    def of(self, is_truthful: bool) -> str:
        """The word with its article."""
        return self.truthful if is_truthful else self.lying

    def columns(self) -> dict[str, str]:
        """The six forms of the public ``knight_knave`` column, in its order of fields."""
        knight, knave = self.truthful.split()[1], self.lying.split()[1]
        return {"Knave": knave.capitalize(), "Knight": knight.capitalize(),
                "a_knave": self.lying, "a_knight": self.truthful, "knave": knave,
                "knight": knight}


class Worded(NamedTuple):
    """A puzzle in words."""

    quiz: str
    names: tuple[str, ...]
    roles: Roles


def word_puzzle(statements: Statements, seed: int, wording: Wording | None = None) -> Worded:
    """The text of a puzzle; ``seed`` draws names and sayings (published: 1234 + problem index).

    Raises:
        DataError: a statement has more than two levels, which the wording cannot express.
    """
    wording = wording or Wording()
    rng = np.random.default_rng(seed)
    pool = UNCOMMON_NAMES if wording.uncommon_names else COMMON_NAMES
    names = tuple(str(name) for name in rng.choice(pool, size=len(statements), replace=False))
    pair = ROLE_PAIRS[rng.integers(0, len(ROLE_PAIRS))] if wording.other_roles else KNIGHT_KNAVE
    roles = Roles(*(pair[::-1] if wording.flipped_roles else pair))
    spoken = [
        SAYINGS[rng.integers(0, len(SAYINGS))].format(
            name=name, content=word_statement(statement, names, roles))
        for name, statement in zip(names, statements, strict=True)
    ]
    if wording.reordered:
        spoken = [spoken[i] for i in _other_order(len(spoken), seed + 1)]
    word = roles.columns()
    quiz = (
        f"A very special island is inhabited only by {word['knight']}s and {word['knave']}s. "
        f"{word['Knight']}s always tell the truth, and {word['knave']}s always lie. "
        f"You meet {len(names)} inhabitants: {_enumerate(names)}. {' '.join(spoken)} "
        f"So who is {roles.truthful} and who is {roles.lying}?")
    return Worded(quiz, names, roles)


def _other_order(count: int, seed: int) -> list[int]:
    """A shuffled order other than 0, 1, 2, ..., drawn as the public generator draws it."""
    rng = np.random.default_rng(seed)
    order = list(range(count))
    while order == list(range(count)):
        rng.shuffle(order)
    return order


def _enumerate(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + ", and " + parts[-1]


def word_statement(statement: Statement, names: Sequence[str], roles: Roles) -> str:
    """One statement in words, without the saying around it."""
    def claim(leaf: Statement, negated: bool = False) -> str:
        if leaf[0] not in LEAVES:
            raise DataError(f"no wording for a statement of more than two levels: {statement!r}")
        role = roles.of(leaf[0] == "telling-truth")
        return f"{names[leaf[1]]} is {'not ' if negated else ''}{role}"

    match statement:
        case ("not", leaf):
            return claim(leaf, negated=True)
        case ("and" | "or" as operator, *leaves):
            return f" {operator} ".join(claim(leaf) for leaf in leaves)
        case ("->", premise, conclusion):
            return f"If {claim(premise)} then {claim(conclusion)}"
        case ("<=>", left, right):
            return f"{claim(left)} if and only if {claim(right)}"
        case ("xor", left, right):
            return f"either {claim(left)} or {claim(right)}, but not both"
        case _:
            return claim(statement)


def solution_lines(solution: Assignment, worded: Worded) -> list[str]:
    """``["Zoey is a knight", ...]`` in the order of the names."""
    return [f"{name} is {worded.roles.of(role)}"
            for name, role in zip(worded.names, solution, strict=True)]


def solution_text(solution: Assignment, worded: Worded) -> str:
    """The solution as one sentence."""
    return _enumerate(solution_lines(solution, worded)) + "."


def solution_list(solution: Assignment, worded: Worded) -> str:
    """The solution as a numbered list, the form that answers take."""
    lines = solution_lines(solution, worded)
    return "\n".join(f"({number}) {line}" for number, line in enumerate(lines, 1))


class ChainOfThought(NamedTuple):
    """The search in words, in the three parts of the public rows."""

    head: str
    steps: tuple[str, ...]
    foot: str

    @property
    def text(self) -> str:
        """Head, steps and foot, separated by spaces."""
        return " ".join((self.head, *self.steps, self.foot))


def write_chain_of_thought(
    statements: Statements, worded: Worded, trace: Trace | None = None
) -> ChainOfThought:
    """The chain of thought of a puzzle, claims repeated, as in ``cot_repeat_steps``."""
    trace = trace or search(statements)
    head = ("Let's think step by step, by considering whether each person is lying and if that "
            "leads to contradiction.")
    foot = ("This leads to a feasible solution." if trace.solution is not None
            else "All the configurations lead to contradictions.")
    steps = tuple(_word_step(step, statements, worded) for step in trace.steps)
    return ChainOfThought(head, steps, foot)


def _word_step(step: Step, statements: Statements, worded: Worded) -> str:
    names, roles = worded.names, worded.roles
    name = names[step.person]
    if step.role is None:
        people = [names[p] for p in step.exhausted]
        joined = " and ".join(people) if len(people) < 3 else _enumerate(people)
        return (f"We have exhausted all possibilities for {joined}, "
                f"so let us go back and reconsider {name}.")
    role = roles.of(step.role)
    if step.conflict is None:
        claim = word_statement(statements[step.person], names, roles)
        kind = "claim" if step.role else "false claim"
        return f"Assume {name} is {role}. No contradiction is found in their {kind} that {claim}."
    speaker, speaker_is_knight = step.conflict
    claim = word_statement(statements[speaker], names, roles)
    kind = "claim" if speaker_is_knight else "false claim"
    whose = "their own" if speaker == step.person else names[speaker]
    return (f"{name} cannot be {role}, because this would contradict the {kind} of {whose} "
            f"that {claim}.")
