"""The gold answer of every source of puzzles scores +3, in its own words."""

from typing import get_args

import pytest

from safeladder.data.knights_knaves.compact import Strategy
from safeladder.data.knights_knaves.compact_sources import CompactChains
from safeladder.data.knights_knaves.perturb import Perturbation
from safeladder.data.knights_knaves.prompts import published_prompts
from safeladder.data.sources import load_sources
from safeladder.types import Prompt
from safeladder.verifiers import LogicRL
from safeladder.verifiers.cases import trajectory_of


def score(prompt_or_reference, response):
    reference = getattr(prompt_or_reference, "reference", prompt_or_reference)
    return LogicRL().verify(trajectory_of(response, reference)).score


@pytest.mark.parametrize("perturbation", [None, *get_args(Perturbation)])
def test_published_puzzles_and_their_perturbed_twins(perturbation):
    prompts = published_prompts(3, "train", perturbation=perturbation)[:40]
    assert prompts and all(isinstance(prompt, Prompt) for prompt in prompts)
    for prompt in prompts:
        lines = prompt.reference["solution_text_format"]
        think = "<think>one by one</think>"
        assert score(prompt, f"{think}\n<answer>{lines}</answer>") == 3.0
        flat = ", and ".join(line.partition(") ")[2] for line in lines.splitlines())
        assert score(prompt, f"{think}\n<answer>{flat}.</answer>") == 3.0
        swapped = lines.replace(" is a", " is not a", 1)
        assert score(prompt, f"{think}\n<answer>{swapped}</answer>") == -1.0


def test_compact_chains():
    strategies = dict.fromkeys(get_args(Strategy), 1.0)
    source = CompactChains(type="compact_chains", people=[2, 3, 4], count=12, split="train",
                           strategies=strategies)
    prompts = load_sources([source])
    assert {prompt.meta["strategy"] for prompt in prompts} == set(strategies)
    for prompt in prompts:
        response = prompt.messages[-1].text
        assert score(prompt, response) == 3.0
        other = {"knight": "knave", "knave": "knight"}
        roles = [other[word] for word in prompt.reference["roles"]]
        assert score({**prompt.reference, "roles": roles}, response) == -0.5
