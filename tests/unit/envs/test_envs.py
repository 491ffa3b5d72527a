import asyncio
import pickle

from safeladder.envs import Episode, SingleTurn
from safeladder.types import Message, Prompt

PROMPT = Prompt(id="1", messages=(Message("user", "q"),))


def test_a_single_turn_shows_the_prompt_as_it_is_and_ends() -> None:
    env = SingleTurn()
    assert asyncio.run(env.reset(PROMPT)) is PROMPT
    result = asyncio.run(env.step(Episode(PROMPT, [Message("assistant", "a")])))
    assert (result.done, result.messages, result.media) == (True, (), ())
    assert env.max_turns == 1


def test_an_episode_knows_the_newest_response() -> None:
    episode = Episode(PROMPT, [Message("assistant", "a"), Message("tool", "t"),
                               Message("assistant", "b")])
    assert episode.response == "b"


def test_an_environment_crosses_process_borders() -> None:
    assert pickle.loads(pickle.dumps(SingleTurn())) == SingleTurn()
