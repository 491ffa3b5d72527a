"""The whole method on the engine's verbs alone: reinforcement learning from a verifiable reward.

A tiny transformer with random weights is shown three digits and must answer with the largest.
Nobody shows it an answer: it guesses, a rule says right or wrong, and CPGD (arXiv 2505.12504)
makes right guesses likelier. No recipe, no verifier classes, no logging: about a minute to read,
seconds to run::

    python examples/rl_loop.py

How it differs from ``train/rl.py``, which the ladder runs: prompts are token ids already (no chat
template), the reward is a function (no verdicts, nothing can fail to be judged), nothing is saved.

Shape suffixes: _P prompts, _G completions of one prompt, _T tokens, _D datums.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import numpy as np

from safeladder.algos.base import RewardTable
from safeladder.algos.presets import PRESETS
from safeladder.engine.base import OptimParams, Sampler, SamplingParams, Trainer
from safeladder.types import Batch, Completion, Datum

PROMPTS, GROUP, STEPS = 32, 8, 60
QUESTION = 10  # the token that ends a prompt; digits are their own tokens


def draw_prompt(rng: random.Random) -> list[int]:
    """Three digits and the question mark."""
    return [rng.randrange(10) for _ in range(3)] + [QUESTION]


def reward(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """1 for the largest digit, else 0."""
    return float(list(answer) == [max(prompt[:3])])


async def train(trainer: Trainer, seed: int = 0) -> list[float]:
    """Run the loop; return the mean reward of every step."""
    rng, algorithm, curve = random.Random(seed), PRESETS["cpgd"], []
    policy = await trainer.sampler()                                     # pi_old = pi_theta
    for step in range(STEPS):
        prompts_P = [draw_prompt(rng) for _ in range(PROMPTS)]           # x ~ D
        answers_P_G = await sample_groups(policy, prompts_P, seed=step)  # y_pg ~ pi_old(. | x_p)
        rewards_P_G = [[reward(x, y.token_ids) for y in answers_G]
                       for x, answers_G in zip(prompts_P, answers_P_G, strict=True)]

        # A_pg = (r_pg - mean_g r) / std_g r, the same for every token of the answer
        advantages = algorithm.advantage(RewardTable(
            rewards=np.array(rewards_P_G).ravel(),
            groups=np.repeat(np.arange(PROMPTS), GROUP),
            lengths=np.array([len(y.token_ids) for ys in answers_P_G for y in ys])))

        rows = [(x, y) for x, ys in zip(prompts_P, answers_P_G, strict=True) for y in ys]
        data_D = [make_datum(x, y, a) for (x, y), a in zip(rows, advantages, strict=True)]
        batch = Batch(tuple(data_D), tuple(np.repeat(np.arange(PROMPTS), GROUP).tolist()),
                      algorithm.normalization)

        for minibatch in batch.split(2):                                 # weights are written here
            await trainer.forward_backward(minibatch, algorithm.loss)    # sum loss_T * weights_T
            await trainer.optim_step(OptimParams(learning_rate=3e-3))
        policy = await trainer.sampler()                                 # pi_old <- pi_theta
        curve.append(float(np.mean(rewards_P_G)))
        if step % 10 == 9:
            print(f"step {step + 1:3d}  mean reward {np.mean(curve[-10:]):.2f}")
    return curve


async def sample_groups(
    policy: Sampler, prompts_P: Sequence[Sequence[int]], seed: int,
) -> list[list[Completion]]:
    """GROUP one-token answers for every prompt; the sampler batches them."""
    params = [SamplingParams(max_tokens=1, seed=1000 * seed + p) for p in range(len(prompts_P))]
    return list(await asyncio.gather(*(
        policy.sample(x, params[p], n=GROUP) for p, x in enumerate(prompts_P))))


def make_datum(prompt: Sequence[int], answer: Completion, advantages: np.ndarray) -> Datum:
    """Prompt and answer as one flat row; only the answer's tokens train."""
    token_ids = np.array([*prompt, *answer.token_ids])
    mask = np.array([0] * len(prompt) + [1] * len(answer.token_ids), np.float32)
    spread = np.zeros_like(mask)
    spread[len(prompt):] = advantages
    logprobs = np.zeros_like(mask)
    logprobs[len(prompt):] = answer.sampler_logprobs
    return Datum(token_ids=token_ids, mask=mask, advantages=spread, weights=mask,
                 sampler_logprobs=logprobs, old_logprobs=logprobs)


def make_trainer(seed: int = 0) -> Trainer:
    """A two-layer Qwen3 with random weights in the local engine."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from safeladder.engine.local import LocalTrainer, build_model

    words = [str(digit) for digit in range(10)] + ["?"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(
        {word: i for i, word in enumerate(words)}, unk_token="?")))
    config = {
        "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 16}
    return LocalTrainer(build_model(config, tokenizer, seed))


if __name__ == "__main__":
    asyncio.run(train(make_trainer()))
