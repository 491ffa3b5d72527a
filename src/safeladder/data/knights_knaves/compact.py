"""Knights and Knaves in compact English, with a richer statement grammar than the published one.

Small models made from nothing spend their budget on grammar and on long spellings, so the embedded
recipes use this rendering; the published text (``published.py``) is what the recipes for real
models use. A statement is one to three literals, folded from left to right::

    Ann says Bob knave and Ann knight .            (and, [Bob is a knave], [Ann is a knight])
    Bob says Ann knight iff Bob knave xor Ann knave .

Two people alone have tens of thousands of structures here (the published depth-2 grammar has 399
sets with one solution), so that splits can hold out structures, not texts.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from safeladder.data.knights_knaves.solver import unique_solution
from safeladder.data.knights_knaves.statements import Assignment, Statement, Statements
from safeladder.data.knights_knaves.structure import structure_key

NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal",
         "Ivy", "Jon", "Kim", "Leo", "Mia", "Ned", "Oda", "Pat")
OPERATORS = {"and": "and", "or": "or", "implies": "->", "iff": "<=>", "xor": "xor"}
"""Word in the text -> operator of the statement."""
_WORDS = tuple(OPERATORS)
LITERAL_SHARES = (0.25, 0.45, 0.30)
"""Share of statements with one, two and three literals."""

Split = Literal["train", "validation", "test", "unseen_forms"]
Strategy = Literal["sight", "list", "work", "check"]


class Claim(NamedTuple):
    """One literal: this person is a knight, or a knave."""

    person: int
    knight: bool


class CompactStatement(NamedTuple):
    """Literals folded from left to right: ``((c0 op0 c1) op1 c2)``."""

    claims: tuple[Claim, ...]
    words: tuple[str, ...]

    @property
    def nested(self) -> Statement:
        """The statement as nested tuples, for the solver and the structure."""
        leaves = [("telling-truth" if c.knight else "lying", c.person) for c in self.claims]
        folded: Statement = leaves[0]
        for word, leaf in zip(self.words, leaves[1:], strict=True):
            folded = (OPERATORS[word], folded, leaf)
        return folded


class Puzzle(NamedTuple):
    """Statements with exactly one solution, and the names the people go by."""

    statements: tuple[CompactStatement, ...]
    names: tuple[str, ...]
    solution: Assignment

    @property
    def nested(self) -> Statements:
        """The statements as nested tuples."""
        return tuple(statement.nested for statement in self.statements)

    @property
    def structure(self) -> str:
        """Canonical under renaming, order of people and commutative operands."""
        return structure_key(self.nested)


def apply_word(word: str, left: bool, right: bool) -> bool:
    """The value of ``left word right``."""
    match word:
        case "and":
            return left and right
        case "or":
            return left or right
        case "implies":
            return not left or right
        case "iff":
            return left == right
        case "xor":
            return left != right
    raise ValueError(f"not an operator word: {word!r}")


def draw_statement(rng: random.Random, num_people: int) -> CompactStatement:
    """Draw one statement; its literals differ."""
    count = rng.choices((1, 2, 3), LITERAL_SHARES)[0]
    claims: list[Claim] = []
    while len(claims) < count:
        claim = Claim(rng.randrange(num_people), rng.random() < 0.5)
        if claim not in claims:
            claims.append(claim)
    return CompactStatement(tuple(claims), tuple(rng.choices(_WORDS, k=count - 1)))


def split_of(statements: Sequence[CompactStatement]) -> Split:
    """The split a puzzle belongs to, by its structure alone.

    One in ten of the forms of three literals is reserved: a puzzle that holds one is
    ``unseen_forms``. Of the other structures one in ten is ``test`` and one ``validation``.
    """
    if any(_is_reserved(s, speaker) for speaker, s in enumerate(statements)):
        return "unseen_forms"
    key = structure_key(tuple(statement.nested for statement in statements))
    bucket = zlib.crc32(key.encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


@lru_cache(maxsize=1 << 16)
def _is_reserved(statement: CompactStatement, speaker: int) -> bool:
    return len(statement.words) == 2 and zlib.crc32(form_key(statement, speaker).encode()) % 10 == 7


def form_key(statement: CompactStatement, speaker: int) -> str:
    """A statement's form relative to its speaker: who the others are does not matter.

    Operands of the first operator may change places if it is commutative.
    """
    others = sorted({claim.person for claim in statement.claims} - {speaker})
    return min(
        repr(_sorted_first_pair(statement, {speaker: 0} | dict(zip(others, order, strict=True))))
        for order in itertools.permutations(range(1, len(others) + 1)))


def _sorted_first_pair(
    statement: CompactStatement, number: Mapping[int, int],
) -> tuple[tuple[tuple[int, bool], ...], tuple[str, ...]]:
    claims = [(number[claim.person], claim.knight) for claim in statement.claims]
    words = statement.words
    if len(words) == 2 and words[0] == words[1] and words[0] != "implies":
        claims.sort()
    elif words and words[0] != "implies":
        claims[:2] = sorted(claims[:2])
    return tuple(claims), words


def draw_puzzle(rng: random.Random, num_people: int, split: Split) -> Puzzle:
    """Draw puzzles until one has a single solution and belongs to ``split``."""
    while True:
        statements = tuple(draw_statement(rng, num_people) for _ in range(num_people))
        solution = unique_solution(tuple(statement.nested for statement in statements))
        if solution is not None and split_of(statements) == split:
            return Puzzle(statements, tuple(rng.sample(NAMES, num_people)), solution)


def draw_distinct(rng: random.Random, num_people: int, split: Split, count: int) -> list[
        Puzzle]:
    """``count`` puzzles with as many distinct structures."""
    found: dict[str, Puzzle] = {}
    while len(found) < count:
        puzzle = draw_puzzle(rng, num_people, split)
        found.setdefault(puzzle.structure, puzzle)
    return list(found.values())


ROLES = ("knight", "knave")


def role(knight: bool) -> str:
    """The role's word."""
    return ROLES[0] if knight else ROLES[1]


def puzzle_text(puzzle: Puzzle) -> str:
    """The statements, one sentence per person."""
    return " ".join(f"{name} says {_statement_text(statement, puzzle.names)} ."
                    for name, statement in zip(puzzle.names, puzzle.statements, strict=True))


def _statement_text(statement: CompactStatement, names: Sequence[str]) -> str:
    parts = [f"{names[claim.person]} {role(claim.knight)}" for claim in statement.claims]
    return "".join(f"{word} {part} " for word, part in zip(("", *statement.words), parts,
                                                            strict=True)).strip()


def read_puzzle(text: str) -> tuple[tuple[CompactStatement, ...], tuple[str, ...]]:
    """The statements and names of :func:`puzzle_text`.

    Raises:
        ValueError: the text is none of its making.
    """
    sentences = [sentence.split() for sentence in text.split(" .") if sentence.strip()]
    names = tuple(words[0] for words in sentences)
    statements = []
    for words in sentences:
        if words[1:2] != ["says"] or len(words) % 3 != 1:
            raise ValueError(f"no statement: {' '.join(words)}")
        claims = tuple(Claim(names.index(name), ROLES.index(word) == 0)
                       for name, word in zip(words[2::3], words[3::3], strict=True))
        if any(word not in OPERATORS for word in words[4::3]):
            raise ValueError(f"no operator among {_WORDS}: {' '.join(words)}")
        statements.append(CompactStatement(claims, tuple(words[4::3])))
    return tuple(statements), names


def answer_text(puzzle: Puzzle) -> str:
    """``Ann knight Bob knave``."""
    return " ".join(f"{name} {role(knight)}"
                    for name, knight in zip(puzzle.names, puzzle.solution, strict=True))


def response_text(puzzle: Puzzle, strategy: Strategy) -> str:
    """A teacher's response: :func:`chain_text`, then the solution."""
    return (f"<think> {chain_text(puzzle, strategy)} </think> "
            f"<answer> {answer_text(puzzle)} </answer>")


def chain_text(puzzle: Puzzle, strategy: Strategy) -> str:
    """A teacher's reasoning; every strategy is honest and ends at the puzzle's solution.

    ``sight`` answers at once, ``list`` names the tries and how each ended, ``work`` evaluates
    every statement of every try up to its first contradiction, ``check`` does so and goes through
    the solution once more. The chain's first word names the strategy.
    """
    lines: list[str] = [strategy]
    if strategy == "list":
        lines += [f"{_try_header(tried, puzzle)} {'ok' if tried == puzzle.solution else 'no'}"
                  for tried in _tries(puzzle)]
    elif strategy in ("work", "check"):
        for tried in _tries(puzzle):
            lines += [_try_header(tried, puzzle), *_work(puzzle, tried)]
    if strategy == "check":
        lines += ["check", *_work(puzzle, puzzle.solution)]
    return " ".join(lines)


def walk_text(rng: random.Random, num_people: int) -> str:
    """Pretraining text: statements of the train split, solvable or not, and tries worked through.

    The tries come in order from the first or from any, each up to its first contradiction; the
    text ends with a try that holds, with the last one, or after four. Nothing is asked and
    nothing is answered: it teaches what the words mean, not how to solve a puzzle.
    """
    while True:
        statements = tuple(draw_statement(rng, num_people) for _ in range(num_people))
        if split_of(statements) == "train":
            break
    puzzle = Puzzle(statements, tuple(rng.sample(NAMES, num_people)), (True,) * num_people)
    tries = list(itertools.product((True, False), repeat=num_people))
    start = rng.randrange(len(tries)) if rng.random() < 0.5 else 0
    parts = [puzzle_text(puzzle)]
    for tried in tries[start:start + 4]:
        work = list(_work(puzzle, tried))
        parts += [_try_header(tried, puzzle), *work]
        if work[-1].endswith(" ok"):
            break
    return " " + " ".join(parts)


def _tries(puzzle: Puzzle) -> Iterator[Assignment]:
    """Assignments in order, knight before knave, up to the solution."""
    for tried in itertools.product((True, False), repeat=len(puzzle.names)):
        yield tried
        if tried == puzzle.solution:
            return


def _try_header(tried: Assignment, puzzle: Puzzle) -> str:
    roles = " ".join(_signed(name, knight)
                     for name, knight in zip(puzzle.names, tried, strict=True))
    return f"try {roles} :"


def _signed(name: str, knight: bool) -> str:
    return f"{name}{'+' if knight else '-'}"


def _work(puzzle: Puzzle, tried: Assignment) -> Iterator[str]:
    """The statements evaluated under a try, up to the first that does not fit its speaker."""
    for speaker in range(len(puzzle.names)):
        text, fits = statement_work(puzzle.statements[speaker], speaker, tried, puzzle.names)
        yield text
        if not fits:
            return


def statement_work(
    statement: CompactStatement, speaker: int, tried: Assignment, names: Sequence[str],
) -> tuple[str, bool]:
    """One statement evaluated: ``Ann says Bob knave Bob- T and Ann knight Ann+ T = T Ann+ ok``.

    After each claim stands the person as tried (a look-up in the try's header), then whether the
    two agree (a comparison of the two words before it); each operator is folded in at once. So
    every step needs one look-up or the last few words, never both.
    """
    value = False
    words = [f"{names[speaker]} says"]
    for i, (person, knight) in enumerate(statement.claims):
        agrees = tried[person] == knight
        claim = (f"{names[person]} {role(knight)} {_signed(names[person], tried[person])} "
                 f"{_truth(agrees)}")
        if i == 0:
            value = agrees
            words.append(claim)
        else:
            word = statement.words[i - 1]
            value = apply_word(word, value, agrees)
            words.append(f"{word} {claim} = {_truth(value)}")
    fits = value == tried[speaker]
    words.append(f"{_signed(names[speaker], tried[speaker])} {'ok' if fits else 'no'}")
    return " ".join(words), fits


def _truth(value: bool) -> str:
    return "T" if value else "F"
