import asyncio
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite_sampler import CHECKS, SamplerCase, run_check

from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.engine.base import OptimParams, SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler, TableModel
from safeladder.engine.fake.trainer import FakeTrainer
from safeladder.errors import (
    CheckpointError,
    ConfigError,
    ModelError,
    SamplingError,
)
from safeladder.types import Datum, Media, Message

TOKENS = ByteTokenizer()
PARAMS = SamplingParams(max_tokens=40, stop_token_ids=(TOKENS.eos_token_id,))


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENS(text)["input_ids"])


def table_case() -> SamplerCase:
    table = np.random.default_rng(1).normal(size=(20, 20))
    return SamplerCase(FakeSampler(TableModel(table)), (3, 1, 4), stop_token_id=7)


def trained_case() -> SamplerCase:
    sampler = asyncio.run(FakeTrainer(20, seed=1).sampler())
    return SamplerCase(sampler, (3, 1, 4), stop_token_id=7)


@pytest.mark.parametrize("make", [table_case, trained_case])
@pytest.mark.parametrize("entry", CHECKS)
def test_sampler_contract(entry: Any, make: Any) -> None:
    run_check(entry, make())


def texts(sampler: FakeSampler, prompt: str, n: int = 1, params: SamplingParams = PARAMS,
          ) -> list[str]:
    completions = asyncio.run(sampler.sample(ids_of(prompt), params, n))
    return [TOKENS.decode(c.token_ids).removesuffix("<|end|>") for c in completions]


def test_a_script_answers_by_the_newest_key() -> None:
    sampler = FakeSampler.scripted({"2+2": "4", "sure?": "yes", "sure? now": "no", "": "what?"})
    assert texts(sampler, "2+2") == ["4"]
    assert texts(sampler, "2+2 ... sure?") == ["yes"]
    assert texts(sampler, "sure? 2+2") == ["4"]
    assert texts(sampler, "sure? now") == ["no"]
    assert texts(sampler, "hello") == ["what?"]


def test_a_script_answers_ids_and_functions() -> None:
    by_ids = FakeSampler.scripted({ids_of("2+2"): "four", "2+2": "text"})
    assert texts(by_ids, "2+2") == ["four"]
    assert texts(by_ids, " 2+2") == ["text"]
    echo = FakeSampler.scripted(lambda text: text.upper())
    assert texts(echo, "hello") == ["HELLO"]


def test_a_prompt_without_a_response_is_a_sampling_error() -> None:
    with pytest.raises(SamplingError, match=r"no response to 'hello'.*\['2\+2'\]"):
        texts(FakeSampler.scripted({"2+2": "4"}), "hello")
    with pytest.raises(ConfigError, match="positive weights"):
        texts(FakeSampler.scripted({"": []}), "hello")


def test_log_probabilities_are_those_of_the_stated_distribution() -> None:
    sampler = FakeSampler.scripted({"q": {"ab": 2.0, "ac": 1.0, "d": 1.0}})
    completions = asyncio.run(sampler.sample(ids_of("q"), PARAMS, 4000))
    drawn = Counter(TOKENS.decode(c.token_ids[:-1]) for c in completions)
    for text, p in {"ab": 0.5, "ac": 0.25, "d": 0.25}.items():
        assert abs(drawn[text] / 4000 - p) < 0.03
    by_text = {TOKENS.decode(c.token_ids[:-1]): c.sampler_logprobs for c in completions}
    # p(a) = 3/4, p(b | a) = 2/3, p(end | ab) = 1: together 1/2
    np.testing.assert_allclose(by_text["ab"], [math.log(3 / 4), math.log(2 / 3), 0], atol=1e-6)
    np.testing.assert_allclose(by_text["d"], [math.log(1 / 4), 0], atol=1e-6)
    scored = asyncio.run(sampler.logprobs(ids_of("qab<|end|>")))
    np.testing.assert_allclose(scored, [0, *by_text["ab"]], atol=1e-6)


def test_temperature_divides_the_logits() -> None:
    # weights 1 : 3, squared at temperature 1/2: 1 : 9
    sampler = FakeSampler(TableModel(np.log([[1.0, 3.0], [1.0, 3.0]])))
    warm, cold = (asyncio.run(sampler.logprobs((0, 1, 0), temperature=t)) for t in (1.0, 0.5))
    np.testing.assert_allclose(warm, [0, math.log(3 / 4), math.log(1 / 4)], atol=1e-6)
    np.testing.assert_allclose(cold, [0, math.log(9 / 10), math.log(1 / 10)], atol=1e-6)
    drawn = asyncio.run(sampler.sample((0,), SamplingParams(2000, temperature=0.5)))[0]
    assert abs(np.mean(drawn.token_ids) - 0.9) < 0.03
    expected = np.log(np.where(np.array(drawn.token_ids) == 1, 0.9, 0.1))
    np.testing.assert_allclose(drawn.sampler_logprobs, expected, atol=1e-6)


def test_equal_responses_add_up_and_greedy_takes_the_likelier_branch() -> None:
    sampler = FakeSampler.scripted({"q": ["x", "x", "y"]})
    greedy = replace(PARAMS, temperature=0.0)
    (completion,) = asyncio.run(sampler.sample(ids_of("q"), greedy))
    assert TOKENS.decode(completion.token_ids) == "x<|end|>"
    assert completion.sampler_logprobs[0] == pytest.approx(math.log(2 / 3), abs=1e-6)


def test_text_that_was_never_asked_for_has_no_log_probability() -> None:
    sampler = FakeSampler.scripted({"q": "x"})
    texts(sampler, "q")
    with pytest.raises(SamplingError, match="only behind prompts"):
        asyncio.run(sampler.logprobs(ids_of("other")))


def test_calls_fail_as_told() -> None:
    sampler = FakeSampler.scripted({"": "x"}, fail_on_calls=[2, 3])
    assert texts(sampler, "a") == ["x"]
    for call in (2, 3):
        with pytest.raises(SamplingError, match=f"at call {call}"):
            texts(sampler, "a")
    assert texts(sampler, "a") == ["x"]
    assert sampler.num_calls == 4


def test_images_are_refused_as_declared() -> None:
    image = Media(pixels=np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ModelError, match="takes no images"):
        asyncio.run(FakeSampler.scripted({"": "x"}).sample((1,), PARAMS, 1, [image]))


def test_chat_and_stream_say_what_sample_says() -> None:
    sampler = FakeSampler.scripted({"2+2": ["four", "4"]})
    question = [Message("user", "2+2")]
    replies = asyncio.run(sampler.chat(question, PARAMS, n=6))
    assert {reply.text for reply in replies} == {"four", "4"}
    assert all(reply.finish_reason == "stop" for reply in replies)
    lengths = {reply.text: reply.completion_tokens for reply in replies}
    assert lengths == {"four": 5, "4": 2}
    # <|user|> 2+2 <|end|> <|assistant|>
    assert replies[0].prompt_tokens == 6

    async def streamed() -> list[int]:
        return [i async for i in sampler.stream(ids_of("2+2"), PARAMS)]

    (completion,) = asyncio.run(sampler.sample(ids_of("2+2"), PARAMS))
    assert tuple(asyncio.run(streamed())) == completion.token_ids


@pytest.mark.parametrize("text", ["", "plain", "é😀", "<|user|>a<|end|>", "<|use", "<|image|>"])
def test_bytes_come_back_to_the_letter(text: str) -> None:
    assert TOKENS.decode(TOKENS(text)["input_ids"]) == text
    assert len(TOKENS) == 262


# The trainer runs the contract in test_trainers.py; here are numbers worked out by hand.

def row(ids: list[int], mask: list[float], advantage: float = 1.0, **more: Any) -> Datum:
    mask_T = np.array(mask, np.float32)
    return Datum(token_ids=np.array(ids), mask=mask_T, advantages=mask_T * advantage,
                 weights=mask_T, **more)


UNIFORM = row([0, 1, 2], [0, 1, 1])


def test_a_uniform_table_has_log_v_everywhere_and_temperature_divides_its_logits() -> None:
    trainer = FakeTrainer(3, scale=0.0)
    (logprobs,) = asyncio.run(trainer.forward([UNIFORM]))
    np.testing.assert_allclose(logprobs, [0, -math.log(3), -math.log(3)], rtol=1e-6)

    async def moved() -> list[Any]:
        await trainer.forward_backward([row([0, 1], [0, 1])], NegativeLogLikelihood())
        await trainer.optim_step(OptimParams(0.5))
        return await trainer.forward([row([0, 1], [0, 1]), row([0, 1], [0, 1], temperature=0.5)])

    # AdamW's first step moves each logit by the rate against its gradient: (-.5, +.5, -.5)
    plain, sharp = asyncio.run(moved())
    assert plain[1] == pytest.approx(-math.log(1 + 2 * math.exp(-1)), abs=1e-5)
    assert sharp[1] == pytest.approx(-math.log(1 + 2 * math.exp(-2)), abs=1e-5)


def test_figures_of_a_call_are_weighted_sums_and_plain_means() -> None:
    halved = Datum(token_ids=np.array([0, 1, 2]), mask=np.array([0, 1, 1], np.float32),
                   advantages=np.zeros(3, np.float32), weights=np.array([0, 0.5, 0.25], np.float32))
    trainer = FakeTrainer(3, scale=0.0)
    stats = asyncio.run(trainer.forward_backward([halved], NegativeLogLikelihood()))
    assert stats.sums["loss"] == pytest.approx(0.75 * math.log(3))
    assert stats.scalars()["nll"] == pytest.approx(math.log(3))
    assert stats.scalars()["entropy"] == pytest.approx(math.log(3))
    # d/dz_j of -log p_i is p_j - [i = j]: rows .5 (1/3, -2/3, 1/3) and .25 (1/3, 1/3, -2/3)
    norm = asyncio.run(trainer.optim_step(OptimParams(0.1))).scalars()["grad_norm"]
    assert norm == pytest.approx(math.sqrt((0.25 + 0.0625) * (1 + 4 + 1) / 9))


def test_a_state_of_another_table_is_refused(tmp_path: Path) -> None:
    asyncio.run(FakeTrainer(4).save_state(tmp_path / "state"))
    with pytest.raises(CheckpointError, match=r"a table of \(4, 4\), expected \(5, 5\)"):
        asyncio.run(FakeTrainer(5).load_state(tmp_path / "state"))


def test_what_a_table_cannot_do_it_says() -> None:
    trainer = FakeTrainer(3)
    with pytest.raises(ModelError, match="no Hugging Face form"):
        asyncio.run(trainer.save_checkpoint(Path("x")))
    with pytest.raises(ModelError, match="Muon"):
        asyncio.run(trainer.optim_step(OptimParams(0.1, muon_learning_rate=0.1)))
