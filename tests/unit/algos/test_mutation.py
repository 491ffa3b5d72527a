"""Each hand-computed test goes red when the formula it checks is broken.

The module's source is changed in one place, executed under another name, and the test is run with
the changed class in the place of the real one: it must fail.
"""

import importlib
import sys
from types import ModuleType

import pytest

from . import test_canon as canon
from . import test_cispo as cispo
from . import test_cpgd as cpgd
from . import test_grpo_family as grpo_family
from . import test_gspo as gspo
from . import test_kl_entropy as kl_entropy
from . import test_length_baselines as length_baselines
from . import test_ppo_clip as ppo_clip
from . import test_reinforce_pp as reinforce_pp
from . import test_rloo as rloo
from . import test_sft as sft

MUTATIONS = [
    ("sft", "NegativeLogLikelihood", "loss = -inputs.logprobs", "loss = inputs.logprobs",
     sft.test_nll_by_hand),
    ("ppo_clip", "ClippedSurrogate", "-torch.minimum(", "torch.minimum(",
     ppo_clip.test_clipped_surrogate_by_hand),
    ("ppo_clip", "ClippedSurrogate", "torch.minimum(", "torch.maximum(",
     ppo_clip.test_clipped_surrogate_by_hand),
    ("ppo_clip", "ClippedSurrogate", "r.clamp(1 - eps_low, 1 + eps_high)",
     "r.clamp(1 - eps_low, 1 + eps_low)", ppo_clip.test_clip_higher_moves_the_upper_bound_alone),
    ("ppo_clip", "ClippedSurrogate", "(advantages < 0) & (r < 1 - eps_low)",
     "(advantages > 0) & (r < 1 - eps_low)", ppo_clip.test_metrics_by_hand),
    ("cpgd", "CPGDLoss", "-phi + self.drift_coef * drift", "phi + self.drift_coef * drift",
     cpgd.test_equation_2_by_hand),
    ("cpgd", "CPGDLoss", "-phi + self.drift_coef * drift", "-phi - self.drift_coef * drift",
     cpgd.test_equation_2_by_hand),
    ("cpgd", "CPGDLoss", "log_ratio.clamp(max=upper), log_ratio.clamp(min=lower)",
     "log_ratio.clamp(min=lower), log_ratio.clamp(max=upper)",
     cpgd.test_beyond_the_favourable_bound_only_the_drift_is_left),
    ("cpgd", "CPGDLoss", "torch.log1p(-eps)", "-torch.log1p(eps)",
     cpgd.test_equation_2_by_hand),
    ("cpgd", "CPGDLoss", "uncapped.clamp(max=self.drift_cap)", "uncapped",
     cpgd.test_the_drift_gradient_is_capped_at_alpha_c),
    ("cpgd", "CPGDLoss", "ratio(log_ratio.detach()) - 1", "ratio(log_ratio) - 1",
     cpgd.test_on_policy_the_drift_has_no_gradient_and_phi_has_minus_a),
    ("cpgd", "CPGDLoss", "inputs.progress())", "(1 - inputs.progress()))",
     cpgd.test_the_bound_goes_from_tight_to_loose),
    ("cpgd", "CPGDAdvantage", "table.centred / std", "-table.centred / std",
     cpgd.test_advantage_weights_by_hand),
    ("cpgd", "CPGDAdvantage", "len(groups) / with_signal", "with_signal / len(groups)",
     cpgd.test_clip_filter_counts_prompts_over_the_whole_rollout_and_is_capped),
    ("grpo", "GRPOAdvantage", "table.group_std + self.std_eps", "table.group_std - self.std_eps",
     grpo_family.test_grpo_advantages_by_hand),
    ("dr_grpo", "DrGRPOAdvantage", "broadcast(table.centred", "broadcast(-table.centred",
     grpo_family.test_dr_grpo_advantages_by_hand),
    ("dapo", "SoftOverlong", "-self.scale * min(", "self.scale * min(",
     grpo_family.test_soft_overlong_is_the_papers_at_its_limits),
    ("rloo", "RLOOAdvantage", "len(rows) / (len(rows) - 1)", "1.0",
     rloo.test_leave_one_out_by_hand),
    ("rloo", "RLOOAdvantage", "table.rewards - np.array", "table.rewards + np.array",
     rloo.test_kl_comes_off_the_reward_before_the_baseline),
    ("rloo", "RLOOLoss", "ratio(inputs.row_sum(", "ratio(inputs.row_mean(",
     rloo.test_sequence_ratio_loss_by_hand),
    ("gspo", "GSPOLoss", "ratio(inputs.row_mean(", "ratio(inputs.row_sum(",
     gspo.test_length_normalised_ratio_by_hand),
    ("gspo", "GSPOLoss", "ratio(inputs.row_mean(", "ratio(-inputs.row_mean(",
     gspo.test_length_normalised_ratio_by_hand),
    ("cispo", "CISPOLoss", "loss = -r.clamp", "loss = r.clamp", cispo.test_cispo_by_hand),
    ("cispo", "CISPOLoss", "ratio(inputs.log_ratio.detach())", "ratio(inputs.log_ratio)",
     cispo.test_cispo_by_hand),
    ("kl", "KLPenalty", "ratio(-u) - 1 + u", "ratio(u) - 1 + u",
     kl_entropy.test_k3_in_the_loss_by_hand),
    ("kl", "KLPenalty", "0.5 * u**2", "u**2", kl_entropy.test_k2_in_the_loss_by_hand),
    ("kl", "KLReward", "self.coef * row for", "-self.coef * row for",
     kl_entropy.test_kl_in_the_reward_by_hand),
    ("entropy", "EntropyBonus", "-self.coef * inputs", "self.coef * inputs",
     kl_entropy.test_entropy_bonus_by_hand),
    ("reinforce_pp", "ReinforcePPAdvantage", "row - penalty[::-1]", "row + penalty[::-1]",
     reinforce_pp.test_kl_still_to_come_lowers_the_return_by_hand),
    ("reinforce_pp", "ReinforcePPAdvantage", "tokens.var(ddof=1)", "tokens.var(ddof=0)",
     reinforce_pp.test_whitening_weighs_by_tokens_by_hand),
    ("reinforce_pp", "ReinforcePPBaselineAdvantage", "(row - mean) * scale", "row * scale",
     reinforce_pp.test_baseline_variant_by_hand),
    ("reinforce_pp", "REINFORCE_PP", "KLPenalty(coef=0.001, estimator=\"k3\"",
     "KLPenalty(coef=0.001, estimator=\"k2\"", reinforce_pp.test_logic_rl_loss_by_hand),
    ("canon", "CanonEffAdvantage", "rewards - baseline + self.mu", "rewards - baseline - self.mu",
     canon.test_equation_9_by_hand),
    ("canon", "CanonEffAdvantage", "self.mu * (1 - share) + (1 - self.mu) * share",
     "self.mu * share + (1 - self.mu) * (1 - share)", canon.test_equation_9_by_hand),
    ("canon", "CanonEffAdvantage", "(lengths[:, None] > lengths[None, :])",
     "(lengths[:, None] < lengths[None, :])", canon.test_equation_9_by_hand),
    ("canon", "CanonEffAdvantage", "rewards.clip(min=0.0)", "rewards",
     canon.test_a_failure_below_zero_never_makes_long_answers_better),
    ("canon", "CanonEffAdvantage", "/ tied).clip", "/ 1).clip",
     canon.test_equal_lengths_on_the_cut_are_half_long_each),
    ("canon", "CanonEffAdvantage", "- share * earned", "- share",
     canon.test_all_right_favours_short_by_mu_times_one_minus_alpha),
    ("length_penalty", "LengthPenalty", "-self.coef * min(", "self.coef * min(",
     length_baselines.test_the_plain_penalty_by_hand),
    ("efficient_reasoning", "EfficientReasoningAdvantage", "1 - self.coef * _rel",
     "1 + self.coef * _rel",
     length_baselines.test_right_answers_pay_by_their_relative_length_by_hand),
    ("efficient_reasoning", "EfficientReasoningAdvantage", "table.lengths[right])",
     "table.lengths[right] * 0)",
     length_baselines.test_right_answers_pay_by_their_relative_length_by_hand),
]


def mutated(module: str, old: str, new: str) -> ModuleType:
    """The module with one piece of its code (not of its docstring) changed."""
    original = importlib.import_module(f"safeladder.algos.{module}")
    assert original.__file__ is not None and original.__doc__ is not None
    with open(original.__file__, encoding="utf-8") as file:
        source = file.read().replace(original.__doc__, "")
    assert source.count(old) == 1, f"{module}.py holds {old!r} {source.count(old)} times"
    copy = ModuleType(f"mutated_{module}")
    sys.modules[copy.__name__] = copy
    try:
        exec(compile(source.replace(old, new), original.__file__, "exec"), copy.__dict__)
    finally:
        del sys.modules[copy.__name__]
    return copy


@pytest.mark.parametrize(
    ("module", "name", "old", "new", "test"), MUTATIONS,
    ids=[f"{m[0]}-{m[2]}" for m in MUTATIONS])
def test_breaking_the_formula_turns_the_test_red(
    module: str, name: str, old: str, new: str, test, monkeypatch: pytest.MonkeyPatch,
):
    test()
    broken = getattr(mutated(module, old, new), name)
    monkeypatch.setitem(test.__globals__, name, broken)
    with pytest.raises(AssertionError):
        test()
