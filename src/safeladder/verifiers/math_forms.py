r"""Whether two answers are the same, form by form, in the manner of OlympiadBench's judge.

An answer is a list (order-free), a set, a tuple or an interval (brackets and order count), a
union, an equation, a number with its unit, a word, or one expression; math-verify is asked about
expressions only. Rules, g the gold answer and p the other:

- lists and sets: as many items, each with a partner (a superfluous item is wrong, "5 or 15" is a
  list of two); a set is no tuple; a bare list fits a tuple or interval with round brackets only in
  its order;
- x \pm y is the list of both values;
- numbers: \|p - g\| <= t \|g\| with t the relative tolerance, or <= the reference's absolute one;
  without the latter two whole numbers are equal or not;
- a gold answer that is a number wants a number: an expression of the same value (2^{10}, 3!, a
  sum) may be the question's own. "2 + 3 = 5" is read as 5, "9 = 8" as a contradiction;
- units: equal where both have one; 10% is 0.1 and not 10;
- bases: 101_2 is neither 101_3 nor 5;
- equations: the differences of the two sides have a constant ratio other than 0; "y = e" fits
  the gold answer e and the reverse;
- times of day (3:30) and words: equal letters, upper and lower case alike; a word is never a
  product of symbols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from safeladder.verifiers.math_text import SEPARATOR, is_prose, spelled, split_top
from safeladder.verifiers.math_units import Quantity, plain_number, quantity, units_clash

MAX_ITEMS = 20
"""Lists with more items are compared in order."""

_IN = re.compile(r"\s*[a-zA-Z](?:_\{?\w\}?)?\s*\\in(?![a-zA-Z])\s*")
_NAME = re.compile(r"\s*(?:[a-zA-Z]{1,12}|\\[a-zA-Z]+)(?:_\{?\w{1,5}\}?)?(?:\([a-zA-Z,]{1,5}\))?"
                   r"'?\s*")
_BASE = re.compile(r"(\d+)_\{?(\d{1,2})\}?", re.ASCII)
_RELATION = re.compile(r"<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\neq?(?![a-zA-Z])")
_ORDER = re.compile(r"(<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z]))")
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_CLOCK = re.compile(r"\d{1,2}:[0-5]\d")
_APPROX = re.compile(r"\\approx(?![a-zA-Z])|\\simeq(?![a-zA-Z])|\u2248")
_WRAPPED = re.compile(r"\\text\s{0,4}\{([^{}]*)\}")


class Rules(NamedTuple):
    """How strict a comparison is."""

    relative: float
    """Largest relative difference of two numbers."""
    absolute: float | None
    """Largest absolute difference instead, when the reference gives one."""
    evaluated: bool
    """A gold answer that is a number wants a number."""
    same_expression: Callable[[str, str], bool]
    """Whether two expressions (gold first) are equal: math-verify, or a stand-in of tests."""
    same_equation: Callable[[str, str], bool]
    """Whether two equations have the same solutions up to a constant factor."""


def same_answer(gold: str, answer: str, rules: Rules) -> bool:
    """Whether the answer equals the gold answer, by the rules of the module."""
    return _same(spelled(gold), spelled(answer), rules)


def squeezed(text: str) -> str:
    """One spelling without white space: equal for two texts that are written alike."""
    return _squeezed(spelled(text))


def is_written_out(answer: str) -> bool:
    """Whether nothing in an answer is left to work out: one number, a word, or lists of them."""
    parts = re.split(r"[,;()\[\]]|\\[{}]", SEPARATOR.sub(",", spelled(answer)))
    return all(plain_number(quantity(part).value) is not None or _is_word(part)
               for part in parts if part.strip())


def _same(gold: str, answer: str, rules: Rules) -> bool:
    if not answer or not gold:
        return False
    wanted, found = _items(gold), _items(answer)
    if wanted is None or found is None:
        return False
    if len(wanted) > 1 or len(found) > 1:
        return _same_lists(gold, answer, wanted, found, rules)
    return _same_bracketed(wanted[0], found[0], rules)


def _items(text: str) -> list[str] | None:
    r"""The items of a list; ``\{...\}`` around it is taken off, ``\pm`` stands for two items."""
    member = _IN.match(text)
    if member and text[member.end():].startswith(("(", "[", "\\{", "{")):
        text = text[member.end():]
    text = SEPARATOR.sub(",", text)
    inner = _bracketed(text)
    if inner is not None and inner.kind == "{}":
        text = inner.text
    parts = split_top(text, ",;\n")
    if parts is None:
        return None
    items: list[str] = []
    for part in parts:
        part = part.strip()
        if not part:
            continue
        items += _both_signs(part) if "\\pm" in part or "\\mp" in part else [part]
    return items or None


def _both_signs(text: str) -> list[str]:
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    return [upper.strip().removeprefix("+").strip(), lower]


class _Bracketed(NamedTuple):
    kind: str
    """The two brackets: "()", "[)", "{}" ..."""
    text: str


def _bracketed(text: str) -> _Bracketed | None:
    """The brackets around a whole text."""
    text = text.strip()
    opening = "\\{" if text.startswith("\\{") else text[:1]
    closing = "\\}" if text.endswith("\\}") else text[-1:]
    if opening not in ("(", "[", "\\{", "{") or closing not in (")", "]", "\\}", "}"):
        return None
    inner = text[len(opening):len(text) - len(closing)]
    if split_top(inner, ",") is None:
        return None
    return _Bracketed((opening + closing).replace("\\", ""), inner)


def _same_lists(
    gold: str, answer: str, wanted: Sequence[str], found: Sequence[str], rules: Rules,
) -> bool:
    tuple_ = _bracketed(gold) or _bracketed(answer)
    if len(wanted) == 1 or len(found) == 1:
        # A bare list against a tuple: in order, and only round brackets say no more than a list.
        one, bare = (gold, found) if len(wanted) == 1 else (answer, wanted)
        if tuple_ is None or tuple_.kind != "()" or _bracketed(one) is None:
            return False
        other = gold if one is answer else answer
        parts = split_top(tuple_.text, ",")
        if _bracketed(other) is not None or parts is None or len(parts) != len(bare):
            return False
        pairs = zip(parts, found, strict=True) if one is gold else zip(wanted, parts, strict=True)
        return all(_same(g.strip(), a.strip(), rules) for g, a in pairs)
    if len(wanted) != len(found):
        return False
    if len(wanted) > MAX_ITEMS:
        return all(_same(g, a, rules) for g, a in zip(wanted, found, strict=True))
    left = list(found)
    for item in wanted:
        partner = next((i for i, other in enumerate(left) if _same(item, other, rules)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _same_bracketed(gold: str, answer: str, rules: Rules) -> bool:
    unions = split_top(gold, "\\cup"), split_top(answer, "\\cup")
    if unions[0] is None or unions[1] is None:
        return False
    if len(unions[0]) > 1 or len(unions[1]) > 1:
        return _same_lists("", "", [p.strip() for p in unions[0]],
                           [p.strip() for p in unions[1]], rules)
    one, other = _collection(gold), _collection(answer)
    if one is None and other is None:
        return _same_single(gold, answer, rules)
    one, other = one or _interval(gold), other or _interval(answer)
    if one is None or other is None:
        return False
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return False
    return all(_same(g.strip(), a.strip(), rules) for g, a in zip(one[1], other[1], strict=True))


def _collection(text: str) -> tuple[str, list[str]] | None:
    """Brackets and items of a tuple or interval; None for an expression in brackets."""
    inner = _bracketed(text)
    parts = split_top(inner.text, ",") if inner is not None else None
    return (inner.kind, parts) if inner is not None and parts and len(parts) > 1 else None


def _interval(text: str) -> tuple[str, list[str]] | None:
    r"""Brackets and ends of an inequality of one symbol: ``2 < x \le 3`` is ``(2, 3]``."""
    parts = [part.strip() for part in _ORDER.split(text)]
    if len(parts) == 3 and re.fullmatch("[a-zA-Z]", parts[2]):
        parts = [parts[2], _FLIPPED[parts[1]], parts[0]]
    if len(parts) == 3 and re.fullmatch("[a-zA-Z]", parts[0]):
        closed = parts[1].startswith("\\")
        if parts[1] in ("<", "\\le"):
            return "(]" if closed else "()", ["-\\infty", parts[2]]
        return "[)" if closed else "()", [parts[2], "\\infty"]
    if len(parts) != 5 or not re.fullmatch("[a-zA-Z]", parts[2]):
        return None
    if parts[1] in (">", "\\ge"):
        parts = [parts[4], _FLIPPED[parts[3]], parts[2], _FLIPPED[parts[1]], parts[0]]
    if parts[1] not in ("<", "\\le") or parts[3] not in ("<", "\\le"):
        return None
    return ("[" if parts[1] == "\\le" else "(") + ("]" if parts[3] == "\\le" else ")"), [
        parts[0], parts[4]]


def _same_single(gold: str, answer: str, rules: Rules) -> bool:
    if _squeezed(gold) == _squeezed(answer):
        return True
    if _CLOCK.fullmatch(gold):
        return False
    if _is_word(gold):
        return _letters(gold) == _letters(answer) != ""
    wanted, found = _sides(gold), _sides(answer)
    if len(wanted) == 1 and len(found) > 1:
        return _same_chain(gold, found, rules)
    if len(wanted) == 2 and _NAME.fullmatch(wanted[0]):
        if len(found) == 1:
            return _same_value(wanted[1], answer, rules)
        if _squeezed(wanted[0]) == _squeezed(found[0]):
            return _same_chain(wanted[1], found, rules)
    if len(wanted) == 2 and len(found) == 2:
        return rules.same_equation(gold, answer)
    return len(wanted) == len(found) and _same_value(gold, answer, rules)


def _sides(text: str) -> list[str]:
    if _RELATION.search(text):
        return [text]
    parts = split_top(_APPROX.sub("=", text), "=")
    return [part.strip() for part in parts] if parts else [text]


def _same_chain(gold: str, sides: Sequence[str], rules: Rules) -> bool:
    """A chain "2 + 3 = 5" ends in the answer; a number in it that differs contradicts."""
    if not _same_value(gold, sides[-1], rules):
        return False
    for side in sides[:-1]:
        if _NAME.fullmatch(side) or re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)):
            continue
        if plain_number(side) is not None or plain_number(gold) is None:
            if not _same_value(gold, side, rules):
                return False
        elif not rules.same_expression(gold, side):
            return False
    return True


def _same_value(gold: str, answer: str, rules: Rules) -> bool:
    bases = _BASE.fullmatch(_squeezed(gold)), _BASE.fullmatch(_squeezed(answer))
    if bases[0] or bases[1]:
        return bool(bases[0]) and _same_in_base(bases[0], bases[1], answer)
    wanted, found = quantity(gold), quantity(answer)
    if units_clash(wanted, found):
        return False
    one, other = _number(wanted), _number(found)
    if one is not None and other is not None:
        return _close(one, other, rules)
    if one is not None and rules.evaluated:
        return False
    if (wanted.unit == "%") != (found.unit == "%"):
        return False
    if not wanted.value or not found.value or is_prose(found.value):
        return False
    symbols = [set(re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", one.value)))
               for one in (wanted, found)]
    # math-verify takes "A" for "a".
    if symbols[0] != symbols[1] and {s.lower() for s in symbols[0]} == {
            s.lower() for s in symbols[1]}:
        return False
    return rules.same_expression(wanted.value, found.value)


def _same_in_base(
    gold: re.Match[str] | None, answer: re.Match[str] | None, text: str,
) -> bool:
    """101_2 is 101_{2}, and 101 where the base goes without saying."""
    if gold is None:
        return False
    if answer is None:
        return _squeezed(text) == gold.group(1)
    return gold.groups() == answer.groups()


def _number(one: Quantity) -> Fraction | None:
    value = plain_number(one.value)
    return value / 100 if value is not None and one.unit == "%" else value


def _close(gold: Fraction, answer: Fraction, rules: Rules) -> bool:
    if rules.absolute is None and gold.denominator == answer.denominator == 1:
        return gold == answer
    allowed = (Fraction(rules.absolute) if rules.absolute is not None
               else abs(gold) * Fraction(rules.relative))
    return abs(gold - answer) <= allowed


def _is_word(text: str) -> bool:
    r"""Whether a gold answer is a word or a label: ``\text{even}``, "Monday", ``\text{(B)}``."""
    bare = _WRAPPED.sub("", text)
    return is_prose(text) and not re.search(r"\d", text) if bare.strip() else bool(text.strip())


def _letters(text: str) -> str:
    words = _WRAPPED.sub(lambda m: m.group(1), text)
    return "".join(words.casefold().split()).strip("().,;:\"'*`")


def _squeezed(text: str) -> str:
    r"""Without white space (but 1 2 is not 12), and with a/b for \frac{a}{b} of numbers."""
    text = "".join(re.sub(r"(?<=[\w.])\s+(?=[\w.])", "\x00", text).split())
    return re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text)
