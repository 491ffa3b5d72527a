"""Log-probability and entropy of each trained token, and the gradient back from both.

With z = (h W^T + b) / temperature, p = softmax(z) and the token y:

    log pi(y) = z_y - logsumexp(z)              d/dz_j = [j = y] - p_j
    H         = logsumexp(z) - sum_j p_j z_j    d/dz_j = -p_j (log p_j + H)

One softmax serves both. Tokens are taken in chunks, so that a large vocabulary does not need all
its logits at a time; with several chunks the backward computes them anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.engine.local.arena import Arena

_MAX_LOGITS = 1 << 23
"""Logits that exist at a time."""


@dataclass(frozen=True)
class HeadGradients:
    """Where the backward adds."""

    weight: Tensor
    bias: Tensor | None


class TokenHead:
    """The output layer over the trained tokens of one micro-batch.

    Args:
        hidden: (n, E) what the output layer multiplies.
        weight: (V, E).
        bias: (V,) or None.
        targets: (n,) the tokens whose log-probability is asked for.
        temperature: (n,) or None for 1.
        arena: scratch memory.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor,
                 temperature: Tensor | None, arena: Arena) -> None:
        self._hidden, self._weight, self._bias = hidden, weight, bias
        self._targets, self._temperature, self._arena = targets, temperature, arena
        self._chunk = max(1, _MAX_LOGITS // len(weight))
        self._kept: Tensor | None = None
        self.logprobs = hidden.new_empty(len(hidden))
        self.entropy = hidden.new_empty(len(hidden))

    @torch.no_grad()
    def forward(self) -> None:
        """Fill ``logprobs`` and ``entropy`` (n,)."""
        single = len(self._hidden) <= self._chunk
        for part in self._parts():
            mark = self._arena.height
            log_p = self._log_softmax(part)
            torch.gather(log_p, 1, self._targets[part, None], out=self.logprobs[part, None])
            p = torch.exp(log_p, out=self._arena.empty(*log_p.shape))
            torch.linalg.vecdot(p, log_p, out=self.entropy[part])
            if single:
                self._kept = log_p
            else:
                self._arena.release(mark)
        self.entropy.neg_()

    @torch.no_grad()
    def backward(self, grad_logprobs: Tensor, grad_entropy: Tensor | None, out: Tensor,
                 gradients: HeadGradients) -> None:
        """Write the gradient of ``hidden`` to ``out`` (n, E) and add those of the weights."""
        for part in self._parts():
            mark = self._arena.height
            log_p = self._kept if self._kept is not None else self._log_softmax(part)
            grad = torch.exp(log_p, out=self._arena.empty(*log_p.shape))
            factor = -grad_logprobs[part, None]
            if grad_entropy is not None:
                log_p.add_(self.entropy[part, None]).mul_(grad_entropy[part, None])
                factor = factor - log_p
            grad.mul_(factor)
            grad.scatter_add_(1, self._targets[part, None], grad_logprobs[part, None])
            if self._temperature is not None:
                grad.div_(self._temperature[part, None])
            torch.mm(grad, self._weight, out=out[part])
            gradients.weight.addmm_(grad.t(), self._hidden[part])
            if gradients.bias is not None:
                gradients.bias.add_(grad.sum(0))
            self._arena.release(mark)

    def _parts(self) -> list[slice]:
        return [slice(start, start + self._chunk)
                for start in range(0, len(self._hidden), self._chunk)]

    def _log_softmax(self, part: slice) -> Tensor:
        hidden = self._hidden[part]
        logits = torch.mm(hidden, self._weight.t(),
                          out=self._arena.empty(len(hidden), len(self._weight)))
        if self._bias is not None:
            logits.add_(self._bias)
        if self._temperature is not None:
            logits.div_(self._temperature[part, None])
        return torch.log_softmax(logits, -1, out=logits)
