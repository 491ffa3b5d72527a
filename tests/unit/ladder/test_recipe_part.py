"""Some rungs of a recipe alone: what they start from, and what is left out because of it."""

from pathlib import Path

import pytest

from safeladder.errors import ConfigError, DataError
from safeladder.ladder.recipe import load_recipe
from safeladder.ladder.recipe_part import part_of

CLIMB = load_recipe("climb", [])
RUNGS = [rung.name for rung in CLIMB.rungs]


def test_without_a_choice_the_recipe_is_the_same() -> None:
    assert part_of(CLIMB, [], None) == (CLIMB, [])


def test_a_rung_is_as_it_was_but_for_where_it_starts() -> None:
    part = part_of(CLIMB, ["safe_efficient_rl"], "there/m3_rl")
    (rung,), whole = part.recipe.rungs, CLIMB.by_name["safe_efficient_rl"]
    assert part.recipe.model.model_dump() == {
        "type": "checkpoint", "path": "there/m3_rl", "chat_template": None}
    assert part.recipe.name == "climb.safe_efficient_rl"
    assert rung == whole.model_copy(update={"gates": []})
    assert part.left_out == [
        f"safe_efficient_rl: no gate on {figure}, for m3_rl, which it is held against, is not run"
        for figure in ("safety", "capability")]


def test_gates_and_comparisons_among_the_rungs_that_run_stay() -> None:
    part = part_of(CLIMB, ["deliberative_search_rl", "unconstrained"], "there")
    arm, rung = part.recipe.rungs
    # the arm goes on from the rung before it, which is not run; the rung would from the warm-up
    assert (arm.name, arm.start_from) == ("unconstrained", None)
    assert (rung.start_from, rung.compare_with) == ("there", "unconstrained")
    assert part.recipe.start_of(arm) is None and part.recipe.start_of(rung) == "there"
    assert not rung.gates and len(part.left_out) == 2
    m3 = part_of(CLIMB, ["m3_rl_general", "m3_rl"], "there")
    assert [gate.figure for gate in m3.recipe.rungs[1].gates] == ["safety", "over_refusal"]
    assert m3.recipe.start_of(m3.recipe.rungs[1]) == "m3_rl_general"
    assert m3.left_out == [
        "m3_rl: no gate on capability, for cot_sft, which it is held against, is not run"]


def test_a_comparison_with_a_rung_that_is_not_run_is_told() -> None:
    part = part_of(CLIMB, ["deliberative_search_rl"], "there")
    assert part.recipe.rungs[0].compare_with is None
    assert part.left_out[0] == (
        "deliberative_search_rl: not compared with unconstrained, which is not run")


def test_the_first_rung_needs_no_checkpoint_but_has_another_tokenizer() -> None:
    part = part_of(CLIMB, ["cot_sft"], None)
    assert part.recipe.model == CLIMB.model
    assert part.left_out == ["cot_sft: the tokenizer is made without the rows of the rungs that "
                             "are not run, so the numbers are not those of the whole climb"]
    assert not part_of(CLIMB, RUNGS, None).left_out


def test_all_rungs_from_a_checkpoint() -> None:
    part = part_of(CLIMB, [], "there")
    assert [rung.name for rung in part.recipe.rungs] == RUNGS and part.recipe.name == "climb"
    assert part.recipe.start_of(part.recipe.rungs[0]) is None and not part.left_out
    assert part.recipe.rungs[1:] == CLIMB.rungs[1:]


def test_the_chat_template_of_a_model_from_a_hub_is_kept() -> None:
    recipe = CLIMB.model_validate(CLIMB.model_dump() | {
        "model": {"type": "checkpoint", "path": "a/base", "chat_template": "chat.jinja"}})
    part = part_of(recipe, ["m3_rl"], "there")
    assert part.recipe.model.model_dump()["chat_template"] == "chat.jinja"


def test_a_start_that_the_recipe_names_by_its_place_gives_way_to_the_users() -> None:
    data = CLIMB.model_dump()
    data["rungs"][1]["start_from"] = "elsewhere"
    recipe = CLIMB.model_validate(data)
    (rung,) = part_of(recipe, ["m3_rl_general"], None).recipe.rungs
    assert rung.start_from == "elsewhere"
    assert not part_of(recipe, ["m3_rl_general"], None).left_out
    part = part_of(recipe, ["cot_sft", "m3_rl_general"], "there").recipe
    assert [part.start_of(rung) for rung in part.rungs] == [None, "there"]


@pytest.mark.parametrize(("names", "start", "message"), [
    (["m3_lr"], "there", "recipe 'climb' has no rung 'm3_lr' (did you mean 'm3_rl'?)"),
    (["m3_rl"], None, "rung 'm3_rl' starts from 'm3_rl_general', which is not run: name the "
     "checkpoint to start from with --from, or that rung, too"),
    (["cot_sft", "m3_rl"], None, "rung 'm3_rl' starts from 'm3_rl_general'")])
def test_what_cannot_be(names: list[str], start: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        part_of(CLIMB, names, start)
    assert str(raised.value).startswith(message)


def test_own_answers_are_those_of_the_run_that_the_checkpoint_lies_in(tmp_path: Path) -> None:
    full, traces = load_recipe("climb_full", []), tmp_path / "traces"
    start = tmp_path / "rungs" / "safe_efficient_rl" / "checkpoint"
    start.mkdir(parents=True)
    traces.mkdir()
    with pytest.raises(DataError, match="rung 'm3_rl' left no answers"):
        part_of(full, ["search_warm_up"], str(start))
    for name in ("m3_rl", "safe_efficient_rl"):
        (traces / f"{name}-train-step000001-t1.parquet").touch()
    part = part_of(full, ["search_warm_up"], str(start))
    own = [source for source in part.recipe.rungs[0].data if source.type == "trace_answers"]
    assert [source.path for source in own] == [
        (str(traces / f"{name}-train-step000001-t1.parquet"),)
        for name in ("m3_rl", "safe_efficient_rl")]
    assert [source.prompts for source in own] == [
        tuple(full.by_name[name].data) for name in ("m3_rl", "safe_efficient_rl")]
    # of a rung that runs itself they are still its own
    part = part_of(full, ["m3_rl", "safe_efficient_rl", "search_warm_up"], str(start))
    assert part.recipe.by_name["search_warm_up"].data == full.by_name["search_warm_up"].data


@pytest.mark.parametrize("start", ["there", "/", "a/hub-id", "runs/models/mine/checkpoint"])
def test_own_answers_without_a_run_are_refused(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "traces").mkdir(parents=True)  # beside models/, which is no rungs/
    full = load_recipe("climb_full", [])
    with pytest.raises(ConfigError, match=r"climb_full, only search_warm_up: .*'search_warm_up': "
                       "own_answers of 'm3_rl', but no rung of type rl"):
        part_of(full, ["search_warm_up"], start)
