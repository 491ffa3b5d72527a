"""DAPO: decoupled clip and dynamic sampling policy optimization (arXiv 2503.14476).

GRPO's advantages and PPO's clip with

- clip-higher: eps_low = 0.2, eps_high = 0.28 (eq. 10), no KL term;
- token-level loss: the mean over tokens (``token_mean``; eq. 12);
- dynamic sampling: groups with equal rewards are replaced by further prompts (eq. 11);
- overlong filtering: rows cut at the limit train with weight 0 (``mask_truncated``);
- soft overlong punishment (eq. 13), see :class:`SoftOverlong`.

Departures and choices
- Eq. 12 averages over the tokens of one group, then over prompts (``prompt_mean``). The authors'
  code and TRL average over the tokens of the step; we follow the code.
- The paper's table adds filtering and punishment one after the other; the authors' 32B script has
  the punishment only. Both are on here; a filtered row still counts in its group's statistics.
- The paper's filter looks at accuracy. Here a group is dropped when its training rewards are all
  equal; with the punishment on, all-wrong groups of different overlong lengths are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import Algorithm, require
from safeladder.algos.grpo import GRPOAdvantage
from safeladder.algos.ppo_clip import ClippedSurrogate


@dataclass(frozen=True)
class SoftOverlong:
    """The length term of eq. 13, with L = max_tokens and cache C = ``cache_share`` * L tokens.

        0                       n <= L - C
        scale (L - C - n) / C   L - C < n <= L
        -scale                  n > L

    The paper has C = 4096 of L = 20480 tokens; the share keeps its shape for other limits.
    """

    cache_share: float = 0.2
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.cache_share <= 1, f"cache_share must be in (0, 1], got {self.cache_share}")
        require(0 <= self.scale < float("inf"), f"scale must not be negative, got {self.scale}")

    def __call__(self, num_tokens: int, max_tokens: int) -> float:
        """The term to add to the reward, in [-scale, 0]."""
        cache = self.cache_share * max_tokens
        excess = num_tokens - (max_tokens - cache)
        return -self.scale * min(max(excess / cache, 0.0), 1.0)


DAPO = Algorithm(
    GRPOAdvantage(), ClippedSurrogate(eps_low=0.2, eps_high=0.28), normalization="token_mean",
    dynamic_sampling=True, overlong=SoftOverlong(), mask_truncated=True)
