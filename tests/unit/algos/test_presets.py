import re
from pathlib import Path

import pytest
import yaml

from safeladder.algos.base import Algorithm, PenalizedLoss
from safeladder.algos.cpgd import CPGDAdvantage, CPGDLoss
from safeladder.algos.dapo import SoftOverlong
from safeladder.algos.entropy import EntropyBonus
from safeladder.algos.grpo import GRPOAdvantage
from safeladder.algos.kl import KLPenalty, KLReward
from safeladder.algos.length_penalty import LengthPenalty
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.algos.presets import (
    ADVANTAGES,
    LOSSES,
    PRESETS,
    SHAPINGS,
    build_algorithm,
)
from safeladder.algos.reinforce_pp import ReinforcePPAdvantage
from safeladder.algos.rloo import RLOOAdvantage, RLOOLoss
from safeladder.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_a_name_alone_is_the_preset(name: str):
    assert build_algorithm(name) == PRESETS[name] == build_algorithm({"preset": name})


def test_cpgd_is_the_papers_best_setting():
    assert PRESETS["cpgd"] == Algorithm(
        CPGDAdvantage("std", 3.0, 1e-9), CPGDLoss(0.2, 0.01, 2.0, 1.0), "sequence_mean")


@pytest.mark.parametrize(("spec", "expected"), [
    ({"preset": "cpgd", "loss": {"eps": 0.3}, "advantage": {"weight": "equal"}},
     Algorithm(CPGDAdvantage("equal"), CPGDLoss(eps=0.3))),
    ({"preset": "cpgd", "normalization": "token_mean", "mask_truncated": True},
     Algorithm(CPGDAdvantage(), CPGDLoss(), "token_mean", mask_truncated=True)),
    ({"preset": "grpo", "kl": None}, Algorithm(GRPOAdvantage(), ClippedSurrogate())),
    ({"preset": "grpo", "kl": {"coef": 0.1}}, Algorithm(
        GRPOAdvantage(), PenalizedLoss(ClippedSurrogate(), (KLPenalty(0.1, "k3"),)))),
    # To YAML 1.1 "1e-3" is text.
    ({"preset": "cpgd", "entropy": {"coef": "1e-3"}}, Algorithm(
        CPGDAdvantage(), PenalizedLoss(CPGDLoss(), (EntropyBonus(0.001),)))),
    ({"preset": "rloo", "advantage": {"kl": {"estimator": "k3"}}},
     Algorithm(RLOOAdvantage(KLReward(0.05, "k3")), RLOOLoss())),
    ({"preset": "rloo", "advantage": {"kl": None}}, Algorithm(RLOOAdvantage(), RLOOLoss())),
    ({"preset": "cpgd", "advantage": {"type": "rloo"}}, Algorithm(RLOOAdvantage(), CPGDLoss())),
    ({"preset": "cpgd", "advantage": {"type": "reinforce_pp", "kl": {}}},
     Algorithm(ReinforcePPAdvantage(KLReward()), CPGDLoss())),
    ({"preset": "dr_grpo", "overlong": {}, "dynamic_sampling": True}, Algorithm(
        PRESETS["dr_grpo"].advantage, ClippedSurrogate(), "constant", True, SoftOverlong())),
    ({"preset": "cpgd", "overlong": {"type": "length_penalty", "coef": 0.3}},
     Algorithm(CPGDAdvantage(), CPGDLoss(), overlong=LengthPenalty(0.3))),
    ({"preset": "cpgd", "overlong": {"type": "length_penalty"}, "advantage": {"weight": "equal"}},
     Algorithm(CPGDAdvantage("equal"), CPGDLoss(), overlong=LengthPenalty())),
])
def test_overrides(spec: dict[str, object], expected: Algorithm):
    assert build_algorithm(spec) == expected


def test_overriding_the_kl_keeps_the_entropy_bonus_and_the_other_way_round():
    without_kl = build_algorithm({"preset": "reinforce_pp", "kl": None})
    assert without_kl.loss == PenalizedLoss(ClippedSurrogate(), (EntropyBonus(0.001),))
    without_entropy = build_algorithm({"preset": "reinforce_pp", "entropy": None})
    assert without_entropy.loss == PenalizedLoss(
        ClippedSurrogate(), (KLPenalty(0.001, "k3", 10.0),))


@pytest.mark.parametrize(("spec", "message"), [
    ("cpdg", "algorithm.preset: unknown name 'cpdg' (did you mean 'cpgd'?)"),
    ({}, "algorithm: preset is missing"),
    ({"preset": "cpgd", "los": {}}, "unknown key 'algorithm.los' (did you mean 'loss'?)"),
    ({"preset": "cpgd", "loss": {"epss": 0.3}},
     "unknown key 'algorithm.loss.epss' (did you mean 'eps'?)"),
    ({"preset": "rloo", "advantage": {"kl": {"coeff": 1}}},
     "unknown key 'algorithm.advantage.kl.coeff' (did you mean 'coef'?)"),
    ({"preset": "dr_grpo", "advantage": {"std_eps": 1}},
     "unknown key 'algorithm.advantage.std_eps' (it has no fields)"),
    ({"preset": "cpgd", "advantage": {"type": "rlo"}},
     "algorithm.advantage.type: unknown name 'rlo' (did you mean 'rloo'?)"),
    ({"preset": "cpgd", "overlong": {"type": "length"}},
     "algorithm.overlong.type: unknown name 'length' (did you mean 'length_penalty'?)"),
    ({"preset": "dapo", "overlong": {"coef": 1}}, "unknown key 'algorithm.overlong.coef'"),
    ({"preset": "cpgd", "advantage": {"type": "canon_eff", "alpha": 2}},
     "algorithm.advantage: alpha must be in [0, 1], got 2.0"),
    ({"preset": "cpgd", "loss": {"eps": 2}}, "algorithm.loss: eps must be in (0, 1), got 2.0"),
    ({"preset": "cpgd", "loss": {"eps": "wide"}}, "algorithm.loss.eps: Input should be a valid"),
    ({"preset": "cpgd", "loss": 3}, "algorithm.loss: expected a mapping of fields, found 3"),
    ({"preset": "grpo", "kl": {"estimator": "k1"}},
     "algorithm.kl: k1 in the loss has an expected gradient of 0"),
    ({"preset": "cpgd", "normalization": "tokens"}, "algorithm.normalization: Input should be"),
])
def test_mistakes_are_named(spec: dict[str, object] | str, message: str):
    with pytest.raises(ConfigError) as caught:
        build_algorithm(spec)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


PAPERS = Path(__file__).parents[3] / "docs" / "PAPERS.md"


def test_the_papers_page_names_every_choice_and_its_recipes_build():
    text = PAPERS.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in {**PRESETS, **ADVANTAGES, **LOSSES, **SHAPINGS})
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        build_algorithm(yaml.safe_load(block)["algorithm"])
