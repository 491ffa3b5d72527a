import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from safeladder.engine.base import SamplingParams
from safeladder.engine.fake import ByteTokenizer, FakeSampler
from safeladder.envs import SingleTurn
from safeladder.eval.evaluate import evaluate
from safeladder.eval.metrics import evaluation_metrics
from safeladder.render import Renderer
from safeladder.types import Message, Prompt, Trajectory, Verdict
from safeladder.verifiers import LogicRL, Objective, Verifier, VerifyPolicy, build_objective

RIGHT = "<think>Ann lies.</think><answer>Ann knave Bob knight</answer>"
WRONG = "<think>Ann lies.</think><answer>Ann knight Bob knight</answer>"
PARAMS = SamplingParams(max_tokens=80, temperature=0.0)


class Broken:
    """A verifier that never manages to judge."""

    name = "logic_rl"

    def verify(self, trajectory: Trajectory) -> Verdict:
        raise OSError("no connection")


@dataclass(frozen=True)
class Judge:
    verifiers: Mapping[str, Verifier] = field(default_factory=lambda: {"logic_rl": LogicRL()})
    objective: Objective = field(
        default_factory=lambda: build_objective({"tasks": {"*": {"parts": {"logic_rl": 1.0}}}}))
    policy: VerifyPolicy = field(
        default_factory=lambda: VerifyPolicy(max_abstentions=0.0, min_abstentions=1,
                                             truncated="exclude"))


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(id=f"p{i}", messages=(Message("user", text),), meta={"people": 2},
                   reference={"names": ["Ann", "Bob"], "roles": ["knave", "knight"]})
            for i, text in enumerate(texts)]


def run(judge: Judge, script: dict[str, str], repeats: int = 1,
        fail_on_calls: tuple[int, ...] = ()) -> list[Trajectory]:
    sampler = FakeSampler.scripted(lambda prompt: next(
        answer for text, answer in script.items() if text in prompt), fail_on_calls=fail_on_calls)
    return asyncio.run(evaluate(sampler, Renderer(ByteTokenizer()), SingleTurn(),
                                prompts(*script), PARAMS, judge, repeats))


def test_answers_come_judged_in_the_order_of_the_prompts() -> None:
    trajectories = run(Judge(), {"first": RIGHT, "second": WRONG})
    assert [t.prompt.id for t in trajectories] == ["p0", "p1"]
    assert [t.verdicts["logic_rl"].verdict_class for t in trajectories] == ["correct", "wrong"]
    assert evaluation_metrics(trajectories)["kk2_accuracy"].value == 0.5


def test_repeats_give_several_answers_per_prompt() -> None:
    trajectories = run(Judge(), {"first": RIGHT, "second": WRONG}, repeats=2)
    assert [t.prompt.id for t in trajectories] == ["p0", "p0", "p1", "p1"]


def test_a_verifier_that_never_judges_is_counted_not_raised() -> None:
    metrics = evaluation_metrics(run(Judge(verifiers={"logic_rl": Broken()}), {"first": RIGHT}))
    assert (metrics["kk2_accuracy"].value, metrics["kk2_accuracy"].unjudged) == (None, 1)


def test_a_failed_answer_is_counted_not_raised() -> None:
    metrics = evaluation_metrics(run(Judge(), {"first": RIGHT, "second": RIGHT},
                                     fail_on_calls=(2,)))
    assert (metrics["kk2_accuracy"].value, metrics["kk2_accuracy"].unjudged) == (1.0, 1)


def test_a_truncated_answer_is_judged_even_where_training_excludes_it() -> None:
    (trajectory,) = run(Judge(), {"first": "<think>" + "so " * 100})
    assert trajectory.status.is_truncated
    metrics = evaluation_metrics([trajectory])
    assert metrics["kk2_accuracy"].value == 0.0
    assert metrics["truncated"].value == 1.0
