"""Recognise prompts that already went through a chat template, and read their turns.

Logic-RL's files hold whole ChatML strings as the content of a "user" message. A template applied
to such a string wraps it twice, and nothing fails: the model only learns worse.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from safeladder.types import Message, Role


class _Family(NamedTuple):
    """One way to write turns: ``turn`` has groups role and text, ``tail`` opens the assistant's."""

    turn: re.Pattern[str]
    tail: re.Pattern[str]


def _family(turn: str, tail: str) -> _Family:
    return _Family(re.compile(turn, re.DOTALL), re.compile(tail, re.DOTALL))


# What the tail allows after the assistant's header is a pre-filled opening (a think tag).
_FAMILIES = (
    _family(r"\s*<\|im_start\|>(?P<role>\w+)\n(?P<text>.*?)<\|im_end\|>",
            r"\s*<\|im_start\|>assistant\b(?!.*<\|im_end\|>)"),
    _family(r"\s*(?:<\|begin_of_text\|>)?<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>"
            r"(?P<text>.*?)<\|eot_id\|>",
            r"\s*<\|start_header_id\|>assistant<\|end_header_id\|>(?!.*<\|eot_id\|>)"),
    _family(r"\s*(?:<bos>)?<start_of_turn>(?P<role>\w+)\n(?P<text>.*?)<end_of_turn>",
            r"\s*<start_of_turn>model\b(?!.*<end_of_turn>)"),
    _family(r"\s*<\|(?P<role>system|user|assistant)\|>(?P<text>.*?)(?:<\|end\|>|</s>|(?=<\|))",
            r"\s*<\|assistant\|>(?!.*(?:<\|end\|>|</s>))"),
    _family(r"\s*(?:<s>)?\s*\[INST\](?P<text>.*?)(?P<role>(?=\[/INST\]))", r"\[/INST\]"),
    _family(r"(?:<\uff5cbegin\u2581of\u2581sentence\uff5c>)?<\uff5c(?P<role>User|Assistant)\uff5c>"
            r"(?P<text>.*?)(?=<\uff5c)", r"<\uff5cAssistant\uff5c>"),
    # Plain text with named speakers, as base models are prompted (Logic-RL, TinyZero).
    _family(r"(?P<text>.*?\nUser:.*?)(?P<role>(?=\nAssistant:))", r"\nAssistant:\s*<think>\s*$"),
)
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant",
                           "tool": "tool", "model": "assistant", "": "user"}


def rendered_turns(text: str) -> tuple[Message, ...] | None:
    """The turns of a chat string that ends in an open assistant turn; None: it is no such string.

    The text must consist of turns from its first character on: a question that merely quotes a
    template's tags is not taken for one.
    """
    for family in _FAMILIES:
        turns: list[Message] = []
        position = 0
        while match := family.turn.match(text, position):
            if family.tail.match(text, position):
                break
            role = _ROLES.get(match["role"].lower())
            if role is None:
                break
            turns.append(Message(role, match["text"].strip()))
            position = match.end()
        if turns and family.tail.match(text, position):
            return _named_speakers(turns)
    return None


def _named_speakers(turns: list[Message]) -> tuple[Message, ...]:
    """Tell the instruction from the question in a turn of the plain-text family."""
    if len(turns) == 1 and "\nUser:" in turns[0].text and not turns[0].text.startswith("<"):
        instruction, _, question = turns[0].text.partition("\nUser:")
        return Message("system", instruction.strip()), Message("user", question.strip())
    return tuple(turns)
