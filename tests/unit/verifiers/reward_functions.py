"""Reward functions in TRL's and verl's form, well-behaved and not; run in worker processes."""

import ctypes
import os
import sys
import time


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """verl's form. What it does is the response's first word."""
    return ACTIONS[solution_str.split()[0]](solution_str)


def detailed(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "length": len(solution_str),
            "seen": f"{data_source} {sorted(extra_info)}"}


def two_arguments(solution_str, ground_truth):
    return float(ground_truth in solution_str)


async def waits(data_source, solution_str, ground_truth, extra_info=None):
    return 0.25


def by_length(prompts, completions, **kwargs):
    """TRL's form, conversational; None for an empty completion."""
    assert prompts[0][0]["role"] == "user"
    texts = [completion[0]["content"] for completion in completions]
    return [float(len(text)) if text else None for text in texts]


def centred(prompts, completions, ground_truth, level):
    """TRL's form with named columns only; needs the whole batch."""
    values = [float(len(text)) for text in completions]
    mean = sum(values) / len(values)
    return [value - mean + truth + (0 if plus is None else plus)
            for value, truth, plus in zip(values, ground_truth, level, strict=True)]


def one_too_few(prompts, completions, **kwargs):
    return [0.0] * (len(completions) - 1)


def not_a_number(prompts, completions, **kwargs):
    return [float("nan") for _ in completions]


def _loop(_):
    while True:
        pass


def _bomb(_):
    hoard = []
    while True:
        hoard.append(bytes(10_000_000))  # calloc: no page is touched


def _recurse(depth):
    return _recurse(depth + "x")


def _deep(_):
    sys.setrecursionlimit(10**9)
    return _recurse("")


def _fork_and_loop(_):
    os.fork()
    while True:
        time.sleep(1)


def _noise(text):
    print("x" * 200_000, flush=True)
    print("x" * 200_000, file=sys.stderr, flush=True)
    os.write(1, b'["verdict", {"score": 99}]\n')
    sys.stdin.read()
    return 0.5


ACTIONS = {
    "good": lambda text: float(text.split()[1]),
    "loop": _loop,
    "sleep": lambda _: time.sleep(1000),
    "fork": _fork_and_loop,
    "bomb": _bomb,
    "exit": lambda _: os._exit(3),
    "sysexit": lambda _: sys.exit(4),
    "abort": lambda _: ctypes.string_at(0),
    "recurse": _recurse,
    "deep": _deep,
    "raise": lambda _: 1 / 0,
    "noise": _noise,
    "nan": lambda _: float("nan"),
    "text": lambda _: "not a number",
    "huge": lambda _: {"score": 1.0, **{str(i): float(i) for i in range(20_000)}},
}
