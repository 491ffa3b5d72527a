r"""Numbers as they are written, with their units: ``5.4 \text{ cents}``, ``\$36``, ``30^\circ``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

MAX_EXPONENT = 400
"""Of a power of ten that is read as a number."""

_NUM = r"(?:\d++\.?+\d*+|\.\d++)"
_PLAIN = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:"
    rf"(?P<whole>\d+)(?:\s+|(?=\\))(?P<above>\d+|\\frac\{{\d+\}}\{{\d+\}})(?:/(?P<below>\d+))?"
    rf"|(?P<a>{_NUM})\s*(?:/\s*(?P<b>{_NUM}))?"
    rf"|\\frac\{{\s*(?P<fs>-?)(?P<c>{_NUM})\s*\}}\{{\s*(?P<d>{_NUM})\s*\}}"
    rf")(?:(?:\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*\{{?\s*|[eE])(?P<e>[-+]?\d{{1,4}})\s*\}}?)?",
    re.ASCII)
_POWER_OF_TEN = re.compile(r"(?P<sign>[-+]?)\s*10\s*\^\s*\{?\s*(?P<e>[-+]?\d{1,4})\s*\}?",
                           re.ASCII)
_TEXT = re.compile(r"\\text\s{0,4}\{([^{}]{0,60})\}\s{0,4}(?:\^\s{0,4}\{?\s{0,4}(\d)\s{0,4}\}?)?")

_UNITS: dict[str, str] = {
    "%": "% percent", "deg": "deg degree degrees ^\\circ", "rad": "rad radian radians",
    "$": "$ dollar dollars usd", "cent": "cent cents \u00a2", "euro": "\u20ac euro euros eur",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres", "km": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches", "foot": "ft foot feet", "yard": "yd yard yards",
    "mile": "mi mile miles", "mg": "mg milligram milligrams", "g": "g gram grams",
    "kg": "kg kilogram kilograms", "lb": "lb lbs pound pounds", "oz": "oz ounce ounces",
    "ton": "ton tons tonne tonnes", "ms": "ms millisecond milliseconds",
    "s": "s sec secs second seconds", "min": "min mins minute minutes",
    "h": "h hr hrs hour hours", "day": "day days", "week": "week weeks", "month": "month months",
    "year": "year years yr yrs", "ml": "ml milliliter milliliters", "l": "l liter liters litre",
    "hz": "hz", "n": "newton newtons", "j": "joule joules", "w": "watt watts", "v": "volt volts",
    "pa": "pa pascal pascals", "k": "kelvin", "unit": "unit units"}
_KNOWN = {word: unit for unit, words in _UNITS.items() for word in words.split()}
_FILLER = frozenset(["square", "sq", "cubic", "cu", "of", "the", "a", "per", "each", "in", "total",
                     "every", "left", "more", "and"])
_CHANGING = frozenset([
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "halves", "third",
    "thirds", "quarter", "quarters", "tenths", "hundredths", "thousandths", "squared", "cubed",
    "factorial", "plus", "minus", "times", "over", "divided", "to", "or", "than", "choose", "mod"])
"""Words after a number that change its value: with one of them it is not that number."""


class Quantity(NamedTuple):
    """A value as text, and its unit: a known one's name, an unknown word, or empty."""

    value: str
    unit: str
    power: int = 1
    known: bool = True


def plain_number(text: str) -> Fraction | None:
    r"""Read a number that is written out: 12, -3.5, .5, 3/4, \frac{3}{4}, 1 \frac{1}{2},
    2 \times 10^{3}, 10^{3}, 1e5; None for anything that has to be worked out.
    """
    text = text.strip()
    power = _POWER_OF_TEN.fullmatch(text)
    if power:
        return _scaled(Fraction(-1 if power["sign"] == "-" else 1), power["e"])
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    if match["whole"] is not None:
        part = match["above"]
        if part.startswith("\\"):
            above, below = re.findall(r"\d+", part)
        elif match["below"] is None:
            return None
        else:
            above, below = part, match["below"]
        value = None if int(below) == 0 else int(match["whole"]) + Fraction(int(above), int(below))
    elif match["a"] is not None:
        value = _ratio(match["a"], match["b"])
    else:
        value = _ratio(match["c"], match["d"])
        if value is not None and match["fs"]:
            value = -value
    if value is None:
        return None
    value = -value if match["sign"] == "-" else value
    return _scaled(value, match["e"]) if match["e"] is not None else value


def _ratio(above: str, below: str | None) -> Fraction | None:
    divisor = Fraction(below) if below is not None else Fraction(1)
    return Fraction(above) / divisor if divisor else None


def _scaled(value: Fraction, exponent: str) -> Fraction | None:
    return value * Fraction(10) ** int(exponent) if abs(int(exponent)) <= MAX_EXPONENT else None


def quantity(text: str) -> Quantity:
    r"""Take the unit off an answer: ``\$``, ``%``, ``^\circ``, ``\text{...}`` or words at its end.

    Bare words count as a unit only after a number; ``\text`` counts after anything.
    """
    text = text.strip()
    if text.startswith(("\\$", "\u20ac")):
        unit = "$" if text[0] == "\\" else "euro"
        return Quantity(text[2 if unit == "$" else 1:].strip(), unit)
    for mark, unit in (("%", "%"), ("^\\circ", "deg"), ("\u00a2", "cent")):
        if text.endswith(mark):
            return Quantity(text[:-len(mark)].strip(), unit)
    first = text.find("\\text")
    if first > 0:
        words = " ".join(m.group(1) for m in _TEXT.finditer(text, first))
        if not _TEXT.sub("", text[first:]).strip():
            powers = [m.group(2) for m in _TEXT.finditer(text, first) if m.group(2)]
            return _named(text[:first].strip(), words, powers[0] if powers else None)
    glued = re.fullmatch(r"([-+]?[\d.]+)([a-z]{2,4})(?:\^\{?([23])\}?)?", text)
    if glued and glued.group(2) in _KNOWN and plain_number(glued.group(1)) is not None:
        return _named(glued.group(1), glued.group(2), glued.group(3))
    match = re.fullmatch(r"(?s)(.*?[\d}.])\s+([a-zA-Z][a-zA-Z /.'-]{0,80}?)(?:\s?\^?\{?([23])\}?)?",
                         text)
    if match and plain_number(match.group(1)) is not None:
        words = match.group(2)
        if len(words) > 1 or words in _KNOWN:
            return _named(match.group(1).strip(), words, match.group(3))
    return Quantity(text, "")


def _named(value: str, words: str, power: str | None) -> Quantity:
    names = re.findall(r"[a-z$%\u20ac\u00a2]+", words.lower())
    exponent = int(power or 1)
    if {"square", "sq"} & set(names):
        exponent = 2
    elif {"cubic", "cu"} & set(names):
        exponent = 3
    if _CHANGING & set(names):
        return Quantity(f"{value} {words}", "")
    names = [name for name in names if name not in _FILLER] or names
    if not names:
        return Quantity(value, "")
    ratio = "/" in words or " per " in f" {words} "
    if names[0] in _KNOWN:
        unit = "/".join(_KNOWN.get(name, name) for name in names[:2]) if ratio else _KNOWN[names[0]]
        return Quantity(value, unit, exponent)
    return Quantity(value, " ".join(names), exponent, known=False)


def units_clash(one: Quantity, other: Quantity) -> bool:
    """Whether two units cannot be the same. A missing unit clashes with none but percent."""
    if not one.unit or not other.unit:
        return False
    if one.known and other.known:
        return (one.unit, one.power) != (other.unit, other.power)
    if one.known != other.known:
        return False
    return not {word.rstrip("s") for word in one.unit.split()} & {
        word.rstrip("s") for word in other.unit.split()}
