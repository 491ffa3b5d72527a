"""Demonstrations of several turns: the tokens of a rollout, and whose are trained on."""

import asyncio

import numpy as np
import pytest

from safeladder.data.retrieval import Document, PassageIndex
from safeladder.engine.base import SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler
from safeladder.envs import Search
from safeladder.errors import DataError
from safeladder.ladder.embedded import train_tokenizer
from safeladder.render import Renderer
from safeladder.rollout import rollout
from safeladder.tools import SearchTool
from safeladder.train.batch import trajectory_datums
from safeladder.types import Message, Prompt

DOCUMENTS = [Document("Aldor", "the river of Aldor is Sil .")]
SAID = ("<think> so </think> <search> Aldor </search>", "<think> so </think> <read> 1 </read>",
        "<think> so </think> <confidence> 8 </confidence> <answer> Sil </answer>")
QUESTION = Prompt("p", (Message("user", "what is the river of Aldor ?"),))


def spans(ids, mask, decode):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
    return [decode(ids[a:b].tolist()) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def conversation(told):
    messages = [*QUESTION.messages]
    for i, said in enumerate(SAID):
        messages += [Message("assistant", said), *([Message("tool", told[i])] if i < 2 else [])]
    return Prompt("p", tuple(messages))


def test_the_tokens_are_those_of_a_rollout_that_says_the_same():
    renderer = Renderer(ByteTokenizer())
    sampler = FakeSampler.scripted(lambda text: SAID[text.count("<information>")])
    environment = Search({"": SearchTool(PassageIndex(DOCUMENTS))})
    (group,) = asyncio.run(rollout(sampler, renderer, environment, [QUESTION], 1,
                                   SamplingParams(max_tokens=400, seed=1)))
    (datum,) = trajectory_datums(group.trajectories[0], 1.0)
    told = [turn.environment_messages[0].text for turn in group.trajectories[0].turns[:2]]
    shown = renderer.render_conversation(conversation(told))
    assert shown.token_ids.tolist() == datum.token_ids.tolist()
    assert shown.mask.tolist() == datum.mask.tolist()


TOLD = ("<information> 1 : Aldor : the river </information>",
        "<information> Aldor : the river of Aldor is Sil . </information>")


def test_only_the_assistant_is_trained_and_never_the_prefill():
    row = conversation(TOLD)
    tokenizer = train_tokenizer([" ".join(m.text for m in row.messages)] * 3, 400)
    renderer = Renderer(tokenizer)
    ids, mask, _ = renderer.render_conversation(row)
    trained = spans(ids, mask, lambda part: tokenizer.decode(part))
    assert [" ".join(text.split()) for text in trained] == [
        "so</think> <search> Aldor </search><|end|>", "so</think> <read> 1 </read><|end|>",
        "so</think> <confidence> 8 </confidence><answer> Sil</answer><|end|>"]
    rest = tokenizer.decode(ids[mask == 0].tolist())
    assert rest.count("<think>") == 3 and rest.count("<information>") == 2
    # a blank stands in front of every word, so each word is the same token wherever it stands
    assert tokenizer.encode(" <search>", add_special_tokens=False)[0] in ids.tolist()


def test_a_single_turn_is_the_demonstration_as_ever():
    renderer = Renderer(ByteTokenizer())
    row = Prompt("p", (*QUESTION.messages, Message("assistant", SAID[2])))
    one, other = renderer.render_conversation(row), renderer.render_demonstration(
        QUESTION, SAID[2])
    assert one.token_ids.tolist() == other.token_ids.tolist()
    assert one.mask.tolist() == other.mask.tolist()


@pytest.mark.parametrize(("roles", "message"), [
    (("user",), "the last message"), (("user", "assistant", "tool"), "the last message"),
    (("assistant",), "first or twice"), (("user", "assistant", "assistant"), "first or twice")])
def test_what_is_no_conversation_is_refused(roles, message):
    row = Prompt("p", tuple(Message(role, "<think> x") for role in roles))
    with pytest.raises(DataError, match=message):
        Renderer(ByteTokenizer()).render_conversation(row)
