"""Rule verifiers under fire: a reference that no hostile text can meet, and what is counted.

Every type that ships complete has at least one :class:`Target` in ``TARGETS`` (a test demands it):
settings and a reference, or a template of the response, with which full score is impossible, so
that each full score is a verifier that was fooled. :func:`assail` judges hostile texts and counts
crashes, verdicts that came late and false full scores.
"""

from __future__ import annotations

import contextlib
import queue
import re
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import describe
from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.hostile import hostile_text
from safeladder.verifiers.registry import VERIFIERS, build_verifier, close_verifiers
from safeladder.verifiers.words import CHARS_PER_WORD
from safeladder.verifiers.workers import Isolated

RULE_SECONDS = 1.0
"""CPU seconds that a rule without worker process may take for one text."""
GRACE_SECONDS = 2.0
"""Wall-clock seconds beyond the limit of a worker in which its verdict must be there: a late worker
is killed with all its children first.
"""


@dataclass(frozen=True)
class Target:
    """A verifier with a reference that hostile texts cannot meet."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    template: str = "{}"
    """What stands around every text: makes full score impossible where no reference does, or
    puts the text where this verifier looks."""
    full: float = 1.0
    """Scores from here on are full."""
    may_be_right: Callable[[str], bool] = lambda response: False
    """Of the few texts that rightly get full score, a condition that is checked independently."""

    def response(self, text: str) -> str:
        """The response that holds a hostile text."""
        return self.template.format(text)


def _is_option_g(response: str) -> bool:
    text = unicodedata.normalize("NFKC", response)
    return re.search(r"(?<![^\W_])[Gg](?![^\W_])", text) is not None


def _is_varied(response: str) -> bool:
    """Compresses to more than a fiftieth: not one thing said for ever."""
    data = response.encode("utf-8", "surrogatepass")
    is_short = len(data) < 400
    return bool(response.strip()) and (is_short or len(zlib.compress(data)) > len(data) / 50)


_IFEVAL = {"instruction_id_list": ["keywords:existence", "keywords:forbidden_words",
                                   "length_constraints:number_sentences", "startend:quotation",
                                   "language:response_language"],
           "kwargs": [{"keywords": ["quorra"]}, {"forbidden_words": ["quorra"]},
                      {"relation": "at least", "num_sentences": 3}, {}, {"language": "sw"}]}
_MICROWORLD: tuple[Mapping[str, Any], ...] = (
    {"family": "safety", "action": "burn", "object": "flag", "tool": "flint", "hazard": "quorra",
     "guard": "wixbert", "dangerous": {"objects": ["flag"], "tools": ["flint"]}},
    {"family": "logic", "names": ["Quorra", "Wixbert"], "roles": ["knave", "knight"]},
    {"family": "arithmetic", "answer": 982451653},
    {"family": "vision", "answer": "danger of quorra"},
    {"family": "instruction", "constraints": [{"kind": "first", "word": "quorra"},
                                              {"kind": "avoid", "word": "quorra"}]},
    {"family": "value", "allowed": False, "ground": "quorra"},
    {"family": "knowledge", "answer": "Quorra", "relation": "river", "town": "Wixbert"})
_COUNTDOWN = {"dataset": "countdown", "config": {"seed": 1, "size": 1}, "entry": {
    "question": "Reach 982451653 with 29, 6 and 3.", "answer": "-",
    "metadata": {"numbers": [29, 6, 3], "target": 982451653, "expression": "-"}}}
_ARITHMETIC = {"dataset": "basic_arithmetic", "config": {"seed": 1, "size": 1}, "entry": {
    "question": "Calculate.", "answer": "-982451653",
    "metadata": {"source_dataset": "basic_arithmetic", "source_index": 0}}}
_TESTS = {"tests": ["assert f(1) == 982451653", "assert f(-1) == 57885161"]}
_CALLS = {"function": "f", "cases": [{"input": [1], "output": "982451653 quorra"}]}
_STREAM = {"cases": [{"stdin": "3 4\n", "stdout": "982451653 quorra\n"}]}

TARGETS: dict[str, tuple[Target, ...]] = {
    "choice": (Target(reference={"answer": "G", "options": {
        "A": "a dog", "B": "Paris", "C": "5", "G": "quorra wixbert"}}, may_be_right=_is_option_g),
        Target(reference="G", may_be_right=_is_option_g)),
    "code": tuple(Target({"time_limit": 1.0}, reference, template=template)
                  for reference, template in (
        (_TESTS, "{}"), (_CALLS, "```python\n{}\n```"), (_STREAM, "```python\n{}\n```"),
        (_TESTS, "```python\ndef f(x):\n    return x\n\n{}\n```"))),
    "deliberative": tuple(Target(reference="quorra wixbert", template=template) for template in (
        "{}", "<think>x</think>{}",
        "<think>x</think><confidence>9</confidence><answer>{}</answer>")),
    "format": (Target(settings={"min_think_words": 10_000_000}),),
    "ifeval": (Target(settings={"score": "all", "mode": "loose"}, reference=_IFEVAL),),
    "language": (Target(meta={"language": "zh"},
                        template="<think>two and two make four</think>{}"),),
    "length": (Target(settings={"budget": 1, "limit": 2},
                      may_be_right=lambda response: 0 < len(response) <= CHARS_PER_WORD),),
    "logic_rl": (Target(reference={"names": ["Quorra", "Wixbert"], "roles": ["knave", "knight"]},
                        full=3.0),),
    "math": tuple(Target(reference=gold) for gold in (
        "\\frac{982451653}{57885161}", "982451653", "\\sqrt{982451653} x^2 + \\pi",
        "[982451653, \\infty)", "\\{1, 982451653\\}", "(982451653, y)", "x = 982451653",
        "\\begin{pmatrix} 1 & 982451653 \\end{pmatrix}", "982451653 \\text{ apples}")),
    "microworld": tuple(Target(reference=reference) for reference in _MICROWORLD),
    "numeric": (Target(reference=982451653),
                Target(settings={"where": ("last",)}, reference=982451653)),
    "prefix_refusal": (Target(template="<think>so</think>I am sorry, but I cannot help. {}"),),
    "reasoning_gym": (Target(meta={"reasoning_gym": _ARITHMETIC}),
                      Target(meta={"reasoning_gym": _COUNTDOWN})),
    "repetition": (Target(may_be_right=_is_varied),),
    "text_match": (Target(reference=["quorra wixbert", "zanzibar 982451653"]),
                   Target(settings={"score": "f1"}, reference="quorra wixbert")),
    "visual_focus": (Target(meta={"shown": ["quorra"], "absent": ["wixbert"]}),
                     Target(meta={"shown": ["quorra"], "absent": ["wixbert", "dog", "the"]},
                            template="<think>{}")),
}
"""Verifier type -> its targets; texts are dealt to them in turn."""


@dataclass
class Outcome:
    """What an assault on one verifier type came to."""

    texts: int = 0
    huge: int = 0
    """Texts of at least a million characters."""
    crashes: int = 0
    """Exceptions of rules in this process, and workers that died."""
    late: int = 0
    """Verdicts that took longer than their limit (see ``RULE_SECONDS``, ``GRACE_SECONDS``)."""
    full: int = 0
    """Full scores for texts that cannot have earned them."""
    abstained: Counter[str] = field(default_factory=Counter)
    """Reasons of the abstentions of verifiers in workers, the first word of each."""
    slowest: float = 0.0
    """Seconds of the slowest verdict: CPU of a rule in this process, else wall clock."""
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)
    """The first few texts that did it, cut to 100 characters."""

    @property
    def held(self) -> bool:
        """Nothing crashed, came late or was fooled."""
        return not (self.crashes or self.late or self.full)


def fragments_of(kinds: Iterable[str] = tuple(VERIFIERS)) -> list[str]:
    """The good responses of the gold cases: what mixtures are made of."""
    return [case.response for kind in kinds for case in getattr(VERIFIERS[kind], "cases", ())
            if case.kind == "good" and len(case.response) < 500]


def assail(
    kind: str, count: int, seed: int = 0, targets: Sequence[Target] | None = None,
) -> Outcome:
    """Let one verifier type judge ``count`` hostile texts; in its workers if it has them."""
    outcome, fragments = Outcome(), fragments_of()
    targets = TARGETS[kind] if targets is None else targets
    started = time.perf_counter()
    for i, target in enumerate(targets):
        numbers = range(i, count, len(targets))
        texts = (hostile_text(seed, number, fragments) for number in numbers)
        verifier: Any = build_verifier({"type": kind, **target.settings})
        try:
            for text, verdict, seconds in _verdicts(verifier, target, texts):
                _count(outcome, target, text, verdict, seconds, _limit(verifier))
        finally:
            close_verifiers({kind: verifier})
    outcome.seconds = time.perf_counter() - started
    return outcome


def _verdicts(
    verifier: Any, target: Target, texts: Iterable[str],
) -> Iterator[tuple[str, Verdict | Exception, float]]:
    """Each text with what came of it and the seconds it took."""
    def row(text: str) -> Trajectory:
        return trajectory_of(target.response(text), target.reference, target.meta)

    if not isinstance(verifier, Isolated):
        for text in texts:
            trajectory, begin = row(text), time.thread_time()
            try:
                result: Verdict | Exception = verifier.verify(trajectory)
            except Exception as error:  # counted as a crash
                result = error
            yield text, result, time.thread_time() - begin
        return

    pools: queue.SimpleQueue[Isolated] = queue.SimpleQueue()
    one_worker = verifier.isolation.model_copy(update={"workers": 1})
    with contextlib.ExitStack() as stack:
        for _ in range(verifier.isolation.workers):
            pools.put(stack.enter_context(Isolated(verifier.verifier, one_worker)))
        threads = stack.enter_context(ThreadPoolExecutor(verifier.isolation.workers))
        # In chunks, because the pool of threads reads ahead to the end.
        waiting = iter(texts)
        while chunk := list(islice(waiting, 200)):
            yield from threads.map(lambda text: _timed_in_worker(pools, text, row(text)), chunk)


def _timed_in_worker(
    pools: queue.SimpleQueue[Isolated], text: str, row: Trajectory,
) -> tuple[str, Verdict, float]:
    """Judge in an idle worker that has been started: its start is no part of the verdict."""
    pool = pools.get()
    try:
        pool.start()
        begin = time.perf_counter()
        verdict = pool.judge(row)
        return text, verdict, time.perf_counter() - begin
    finally:
        pools.put(pool)


def _limit(verifier: Any) -> float:
    if isinstance(verifier, Isolated):
        return verifier.isolation.time_limit + GRACE_SECONDS
    return RULE_SECONDS


def _count(
    outcome: Outcome, target: Target, text: str, verdict: Verdict | Exception, seconds: float,
    limit: float,
) -> None:
    outcome.texts += 1
    outcome.huge += len(text) >= 1_000_000
    outcome.slowest = max(outcome.slowest, seconds)
    what = ""
    if seconds > limit:
        outcome.late += 1
        what = f"{seconds:.1f} s"
    if isinstance(verdict, Exception):
        outcome.crashes += 1
        what = describe(verdict)
    elif verdict.score is None:
        error = verdict.error or ""
        outcome.abstained[error.partition(":")[0]] += 1
        if error.startswith("worker died"):
            outcome.crashes += 1
            what = error
    elif verdict.score >= target.full and not target.may_be_right(target.response(text)):
        outcome.full += 1
        what = f"score {verdict.score}"
    if what and len(outcome.examples) < 10:
        outcome.examples.append(f"{what}: {text[:100]!r} ({len(text)} characters)")
