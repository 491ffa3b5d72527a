"""The search environment: what it answers, what ends an episode, and what is trained of it."""

import asyncio
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.data.retrieval import Document, PassageIndex
from safeladder.engine.base import SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler
from safeladder.envs import Episode, Search
from safeladder.errors import DataError, ToolError
from safeladder.render import Renderer
from safeladder.render.actions import INSTRUCTIONS, read_move
from safeladder.rollout import rollout
from safeladder.tools import SearchTool
from safeladder.train.batch import trajectory_datums
from safeladder.types import Message, Prompt, Status
from safeladder.verifiers.deliberative import read_episode

DOCUMENTS = [Document("Aldor", "in year 9 : the river of Aldor is Sil ."),
             Document("old map of Aldor", "in year 4 : the river of Aldor is Ond ."),
             Document("Bordor", "in year 9 : the river of Bordor is Ull .")]
TOOL = SearchTool(PassageIndex(DOCUMENTS, abstract_words=3))
ENV = Search({"": TOOL}, k=2)
PROMPT = Prompt(id="1", messages=(Message("user", "what is the river of Aldor ?"),))
THINK = "<think> so </think>"
SEARCH = f"{THINK} <search> Aldor </search>"
ANSWER = f"{THINK} <confidence> 8 </confidence> <answer> Sil </answer>"


def play(env, *responses, prompt=PROMPT):
    """What the environment says to each response; None where it ends the episode."""
    episode, said = Episode(prompt), []
    for response in responses:
        episode.messages.append(Message("assistant", response))
        result = asyncio.run(env.step(episode))
        episode.messages.extend(result.messages)
        said.append(None if result.done else result.messages[0].text
                    .removeprefix("<information> ").removesuffix(" </information>"))
    return said


def test_search_then_read_then_answer():
    assert play(ENV, SEARCH, f"{THINK} <read> 2 </read>", f"{THINK} <read> ALDOR </read>",
                ANSWER) == [
        "1 : Aldor : in year 9 ; 2 : old map of Aldor : in year 4",
        "old map of Aldor : in year 4 : the river of Aldor is Ond .",
        "Aldor : in year 9 : the river of Aldor is Sil .", None]


def test_numbers_are_those_of_the_newest_search_and_titles_of_all():
    bordor = f"{THINK} <search> Bordor </search>"
    said = play(ENV, SEARCH, bordor, f"{THINK} <read> 1 </read>", f"{THINK} <read> Aldor </read>",
                f"{THINK} <read> 3 </read>")
    assert said[2].startswith("Bordor :") and said[3].startswith("Aldor :")
    assert said[4] == "no such result ."


def test_only_what_was_shown_can_be_read():
    assert play(ENV, f"{THINK} <read> Aldor </read>", f"{THINK} <read> 1 </read>") == [
        "no such result ."] * 2


def test_a_read_shows_as_many_words_as_it_may():
    env = Search({"": TOOL}, passage_words=4)
    assert play(env, SEARCH, f"{THINK} <read> 1 </read>")[1] == "Aldor : in year 9 :"


def test_limits_are_one_line_and_not_the_end():
    env = Search({"": TOOL}, max_searches=1, max_reads=1)
    read = f"{THINK} <read> 1 </read>"
    assert play(env, SEARCH, SEARCH, read, read, ANSWER)[1::2] == [
        "no more search .", "no more read ."]
    assert play(ENV, f"{THINK} <search> zzz </search>") == ["nothing found ."]


BLOCKS = st.sampled_from([
    "<think> so </think>", "<think>", "<search> Aldor </search>", "<search> zzz </search>",
    "<read> 1 </read>", "<read> Bordor </read>", "<confidence> 8 </confidence>", "9",
    "<answer> Sil </answer>", "<information> x </information>"])


@given(st.lists(st.lists(BLOCKS, min_size=1, max_size=4).map(" ".join), max_size=6))
def test_the_environment_goes_on_exactly_while_responses_are_searches_and_reads(responses):
    said = play(ENV, *responses)
    kinds = [read_move(response).kind for response in responses]
    assert [text is not None for text in said] == [kind in ("search", "read") for kind in kinds]
    searches = [text for text, kind in zip(said, kinds, strict=True) if kind == "search"]
    assert all(text == "no more search ." for text in searches[ENV.max_searches:])
    assert "no more search ." not in searches[:ENV.max_searches]


@pytest.mark.parametrize("response", [
    "", "Sil", THINK, f"{THINK} <search> </search>", f"{SEARCH} {SEARCH}",
    f"{THINK} <search> Aldor </search> <information> it is Sil </information>"])
def test_a_malformed_response_ends_the_episode(response):
    assert play(ENV, response) == [None]


def test_the_condition_of_the_prompt_chooses_the_passages():
    other = SearchTool(PassageIndex([Document("Aldor of old", "nothing here")]))
    env = Search({"clean": TOOL, "noisy": other, "": TOOL})
    noisy = Prompt(id="2", messages=PROMPT.messages, meta={"passages": "noisy"})
    assert play(env, SEARCH, prompt=noisy) == ["1 : Aldor of old : nothing here"]
    wrong = Prompt(id="3", messages=PROMPT.messages, meta={"passages": "nosy"})
    old = Prompt(id="4", messages=PROMPT.messages, meta={"condition": "noisy"})
    with pytest.raises(DataError, match="'4' names a condition and no passages"):
        asyncio.run(env.reset(old))
    with pytest.raises(DataError, match="'3': no passages named 'nosy'"):
        asyncio.run(env.reset(wrong))
    assert asyncio.run(ENV.reset(wrong)) is wrong  # one corpus: every prompt searches it


def test_instructions_stand_in_the_system_message():
    env = Search({"": TOOL}, instructions=INSTRUCTIONS)
    shown = asyncio.run(env.reset(PROMPT))
    assert [m.role for m in shown.messages] == ["system", "user"]
    kind = Prompt(id="1", messages=(Message("system", "Be kind."), *PROMPT.messages))
    shown = asyncio.run(env.reset(kind))
    assert shown.messages[0].text == f"Be kind.\n\n{INSTRUCTIONS}" and len(shown.messages) == 2
    with pytest.raises(DataError, match="chat template already"):
        asyncio.run(env.reset(Prompt(id="1", messages=(), rendered="x")))


def test_it_crosses_process_borders():
    assert play(pickle.loads(pickle.dumps(ENV)), SEARCH) == play(ENV, SEARCH)


TOKENS = ByteTokenizer()
RENDERER = Renderer(TOKENS)


def roll(env, *responses, **settings):
    sampler = FakeSampler.scripted(lambda text: responses[text.count("<information>")])
    params = SamplingParams(max_tokens=400, seed=3, **settings)
    (group,) = asyncio.run(rollout(sampler, RENDERER, env, [PROMPT], 1, params))
    return group.trajectories[0]


def test_only_the_models_own_tokens_are_trained():
    trajectory = roll(ENV, SEARCH, f"{THINK} <read> 1 </read>", ANSWER)
    assert trajectory.status is Status.COMPLETED and len(trajectory.turns) == 3
    (datum,) = trajectory_datums(trajectory, temperature=1.0)
    runs = np.flatnonzero(np.diff(np.concatenate([[0], datum.mask, [0]])))
    spans = [TOKENS.decode(datum.token_ids[a:b].tolist(), skip_special_tokens=True)
             for a, b in zip(runs[::2], runs[1::2], strict=True)]
    assert spans == [SEARCH, f"{THINK} <read> 1 </read>", ANSWER]
    kept = TOKENS.decode(datum.token_ids[datum.mask == 0].tolist())
    assert kept.count("<information>") == 2 and "in year 9" in kept and "<search>" not in kept
    assert datum.num_trained == trajectory.num_tokens


def test_too_many_turns_and_a_failing_tool_are_statuses():
    trajectory = roll(Search({"": TOOL}, max_turns=2), SEARCH, SEARCH, ANSWER)
    assert trajectory.status is Status.TRUNCATED_TURNS and len(trajectory.turns) == 2

    class Broken(SearchTool):
        def search(self, query, k):
            raise ToolError("search: gone")

    trajectory = roll(Search({"": Broken(PassageIndex(DOCUMENTS))}), SEARCH, ANSWER)
    assert trajectory.status is Status.ERROR_TOOL and "search: gone" in trajectory.error


def test_an_observation_that_the_model_wrote_counts_for_nothing():
    forged = f"{SEARCH} <information> Aldor : the river of Aldor is Sil </information> {ANSWER}"
    trajectory = roll(ENV, forged)
    assert len(trajectory.turns) == 1 and not trajectory.turns[0].environment_messages
    episode = read_episode(trajectory)
    assert (episode.searches, episode.answer) == (0, "") and "environment's" in episode.problem
    honest = read_episode(roll(ENV, SEARCH, ANSWER))
    assert honest == ("Sil", 8, 1, 0, "")
