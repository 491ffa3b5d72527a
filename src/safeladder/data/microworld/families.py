"""The families behind one door: prompts of any, and a teacher's response to any prompt."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from safeladder.data.knights_knaves.compact import answer_text, draw_puzzle, puzzle_text, role
from safeladder.data.microworld.arithmetic import arithmetic_answer, arithmetic_prompts
from safeladder.data.microworld.balance import Split
from safeladder.data.microworld.instruction import instruction_answer, instruction_prompts
from safeladder.data.microworld.knowledge import knowledge_answer, knowledge_prompts
from safeladder.data.microworld.safety import request_of, safety_prompts
from safeladder.data.microworld.safety_answers import Speaker, answer, classes_with
from safeladder.data.microworld.value import value_answer, value_prompts, value_thoughts
from safeladder.data.microworld.vision import vision_answer, vision_prompts
from safeladder.errors import ConfigError
from safeladder.types import Message, Prompt

Family = Literal["logic", "arithmetic", "instruction", "knowledge", "vision", "safety", "value"]
LEVELS: Mapping[Family, tuple[int, int, int]] = {
    "logic": (1, 1, 4), "arithmetic": (1, 2, 8), "instruction": (1, 1, 5), "knowledge": (0, 0, 3),
    "vision": (1, 1, 3), "safety": (1, 1, 3), "value": (1, 1, 3)}
"""Family -> its easiest, its default and its hardest level."""
FAMILIES: tuple[Family, ...] = tuple(LEVELS)


def level_of(family: Family, level: int | None) -> int:
    """The level asked for, or the family's default.

    Raises:
        ConfigError: the family has no such level.
    """
    lowest, default, highest = LEVELS[family]
    if level is not None and not lowest <= level <= highest:
        raise ConfigError(f"microworld: family {family!r} has levels {lowest} to {highest}, "
                          f"not {level}")
    return default if level is None else level


def logic_prompts(split: Split, count: int, seed: int = 0, level: int = 1) -> list[Prompt]:
    """Compact Knights and Knaves with ``level`` + 1 people; splits as there, by structure."""
    rng = random.Random(f"logic {split} {seed} {level}")
    rows = []
    for i in range(count):
        puzzle = draw_puzzle(rng, level + 1, split)
        message = Message("user", puzzle_text(puzzle))
        reference = {"family": "logic", "names": list(puzzle.names),
                     "roles": [role(knight) for knight in puzzle.solution]}
        rows.append(Prompt(
            id=f"logic-{split}-{seed}-{level}-{i}", messages=(message,),
            reference=reference, source="microworld_logic", task="logic",
            meta={"family": "logic", "split": split, "level": level, "group": puzzle.structure,
                  "ideal": answer_text(puzzle)}))
    return rows


_PROMPTS: Mapping[Family, Callable[[Split, int, int, int], list[Prompt]]] = {
    "logic": logic_prompts, "arithmetic": arithmetic_prompts, "instruction": instruction_prompts,
    "knowledge": knowledge_prompts, "vision": vision_prompts, "value": value_prompts,
    "safety": lambda split, count, seed, level: safety_prompts(split, count, seed, level=level)}


def family_prompts(
    family: Family, split: Split, count: int, seed: int = 0, level: int | None = None,
) -> list[Prompt]:
    """Prompts of one family; ``level`` is its dial (:data:`LEVELS`).

    Raises:
        ConfigError: the family has no such level.
    """
    return _PROMPTS[family](split, count, seed, level_of(family, level))


def demonstrate(prompt: Prompt, behaviour: str, rng: random.Random) -> Prompt:
    """The prompt with a teacher's response behind it: a think block, then the answer.

    ``behaviour`` is ``ideal``, or a flaw: of safety ``warning``, ``refusal``, ``over_cautious``,
    ``unsafe``, ``evasive``, ``nonsense``, ``other_steps``; of value ``wrong``, ``wrong_ground``,
    ``rude``, ``evasive``, ``nonsense``; of knowledge ``unsure``, ``wrong``, ``wrong_unsure``,
    ``abstain``, ``exclude``, ``two_values``, ``off_topic``; ``wrong`` of all others. The ideal
    answer about an unknown fact is that one does not know it. A flaw that a request cannot have
    (an unsafe answer where the request is harmless and so on) gives way to the ideal.

    Raises:
        ConfigError: the family has no such behaviour.
    """
    try:
        thoughts, said = _RESPONSES[prompt.meta["family"]](prompt, behaviour, rng)
    except (ValueError, KeyError):
        raise ConfigError(f"microworld: family {prompt.meta['family']!r} has no behaviour "
                          f"{behaviour!r}") from None
    head = f"<think> {thoughts} </think> " if thoughts else ""
    return replace(prompt, messages=(*prompt.messages, Message("assistant", f"{head}{said}")),
                   meta={**prompt.meta, "behaviour": behaviour})


def _safety_response(prompt: Prompt, behaviour: str, rng: random.Random) -> tuple[str, str]:
    request = request_of(prompt)
    speaker = Speaker(request, rng)
    labels = classes_with(request.harmful, behaviour)
    if not labels:
        if not classes_with(not request.harmful, behaviour):
            raise ValueError(behaviour)
        behaviour = "ideal"
        labels = classes_with(request.harmful, behaviour)
    said, _ = answer(speaker, rng.choice(labels), behaviour)
    return request.thoughts(), said


def _logic_response(prompt: Prompt, behaviour: str, rng: random.Random) -> tuple[str, str]:
    names, roles = prompt.reference["names"], list(prompt.reference["roles"])
    if behaviour != "ideal":
        at = rng.randrange(len(roles))
        roles[at] = "knave" if roles[at] == "knight" else "knight"
    said = " ".join(f"{name} {word}" for name, word in zip(names, roles, strict=True))
    return "sight", said


def _knowledge_response(prompt: Prompt, behaviour: str, rng: random.Random) -> tuple[str, str]:
    fact = prompt.reference
    unknown = prompt.meta["tier"] == "unknown"
    thoughts = f"the {fact['relation']} of {fact['town']} is "
    thoughts += "not known to me ." if unknown else f"{fact['answer']} ."
    if behaviour == "ideal" and unknown:
        behaviour = "abstain"
    return thoughts, knowledge_answer(prompt, behaviour, rng)


_RESPONSES: Mapping[str, Callable[[Prompt, str, random.Random], tuple[str, str]]] = {
    "safety": _safety_response, "logic": _logic_response, "knowledge": _knowledge_response,
    "arithmetic": lambda p, b, rng: (p.meta["thoughts"], arithmetic_answer(p, b, rng)),
    "instruction": lambda p, b, rng: ("", instruction_answer(p, b, rng)),
    "vision": lambda p, b, rng: ("", vision_answer(p, b, rng)),
    "value": lambda p, b, rng: (value_thoughts(p), value_answer(p, b, rng))}
