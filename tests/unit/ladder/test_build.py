"""The wiring of a climb: too many failed rollouts stop it, shipped recipes are valid."""

import json
import random
import re
from pathlib import Path

import pytest
import yaml

from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.algos.presets import build_algorithm
from safeladder.config import validate
from safeladder.data.knights_knaves.compact import draw_puzzle, puzzle_text, response_text
from safeladder.data.sources import TraceAnswersSource, build_source
from safeladder.errors import ConfigError, DataError, TooManyAbstentions
from safeladder.ladder.build import check_failures, check_judged, load_prompts, supervised_rows
from safeladder.ladder.embedded import train_tokenizer
from safeladder.ladder.recipe import Recipe, load_recipe
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.render.renderer import Renderer
from safeladder.types import Group, Prompt, Status, Trajectory, Verdict
from safeladder.verifiers import VerifyPolicy


def groups(failed, total):
    prompt = Prompt("p", ())
    rows = [Trajectory(prompt, (), Status.ERROR_SAMPLER, error="gone") for _ in range(failed)]
    rows += [Trajectory(prompt, (), Status.COMPLETED) for _ in range(total - failed)]
    return [Group(prompt, rows)]


def test_failed_rollouts_stop_a_run_above_the_share_allowed():
    policy = VerifyPolicy(max_abstentions=0.1, min_abstentions=8)
    check_failures(groups(10, 100), policy)
    check_failures(groups(7, 20), policy)
    with pytest.raises(TooManyAbstentions, match=r"11 of 100 rollouts failed.*gone"):
        check_failures(groups(11, 100), policy)
    with pytest.raises(TooManyAbstentions, match="4 of 4"):
        check_failures(groups(4, 4), policy)


def test_an_evaluation_that_nobody_judged_stops_like_training():
    rows = [Trajectory(Prompt("p", ()), (), Status.COMPLETED) for _ in range(10)]
    for row in rows:
        row.verdicts = {"judge": Verdict("judge", None, error="gone")}
    with pytest.raises(TooManyAbstentions, match=r"'judge' could not judge 10 of 10.*gone \(10x\)"):
        check_judged(rows, VerifyPolicy())
    check_judged(rows, VerifyPolicy(max_abstentions=1.0))
    check_judged([], VerifyPolicy())


def test_shipped_recipes_are_valid():
    for name in ("climb", "climb_ablations", "climb_full", "first_climb",
                 "first_climb_controls", "first_climb_collapse", "logic_rl_7b",
                 "safework_r1_qwen2_5_vl_7b", "safework_r1_qwen2_5_vl_72b",
                 "safework_r1_internvl3_78b", "safework_r1_deepseek_70b", "cot_filters"):
        assert load_recipe(name, []).name == name


def test_controls_extend_the_climb_and_start_from_its_cold_start():
    recipe = load_recipe("first_climb_controls", [])
    starts = {rung.name: recipe.start_of(rung) for rung in recipe.rungs}
    assert starts["logic_rl"] == "cot_sft"
    assert all(starts[rung.name] == "cot_sft" for rung in recipe.rungs if rung.baseline)
    assert recipe.rungs[2] == load_recipe("first_climb", []).rungs[2]


def test_extending_replaces_a_mapping_of_another_type(tmp_path):
    path = tmp_path / "gdpo.yaml"
    path.write_text("extends: first_climb\nname: mine\n"
                    "objective: {type: gdpo, tasks: {'*': {parts: {logic_rl: 1}}}}\n")
    assert list(load_recipe(str(path), []).objective.tasks) == ["*"]
    path.write_text("extends: first_climb\nname: mine\n"
                    "objective: {tasks: {'*': {parts: {logic_rl: 1}}}}\n")
    assert set(load_recipe(str(path), []).objective.tasks) == {"logic", "*"}


def test_extending_replaces_an_algorithm_of_another_preset():
    text_only = load_recipe("safework_r1_deepseek_70b", [])
    images = load_recipe("safework_r1_qwen2_5_vl_7b", [])
    stage = next(rung for rung in text_only.rungs if rung.name == "m3_rl")
    assert build_algorithm(stage.algorithm).loss == ClippedSurrogate(eps_low=0.2, eps_high=0.2)
    assert (stage.settings.prompts_per_step, stage.settings.max_tokens) == (48, 8192)
    assert (text_only.engine.freeze, images.engine.freeze) == ([], ["visual"])


def test_the_recipe_in_the_readme_is_valid():
    text = (Path(__file__).parents[3] / "README.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert validate(Recipe, yaml.safe_load(block[1]), "README.md").name == "mine"


def test_every_arm_of_the_ablations_leaves_out_what_it_says():
    rungs = load_recipe("climb_ablations", []).by_name
    m3, stage_1 = rungs["m3_rl"], rungs["m3_rl_general"]
    both = m3.settings.num_steps + stage_1.settings.num_steps
    single = rungs["single_objective"]
    assert list(single.objective.tasks) == ["*"]  # nothing of the routing is left
    assert list(single.objective.tasks["*"].parts) == ["world"]
    assert {source.family for source in single.data} == {"safety"}
    for arm in (single, rungs["no_stage_1"]):
        assert arm.settings == m3.settings.model_copy(update={"num_steps": both})
        assert arm.start_from == "cot_sft" and arm.algorithm == m3.algorithm
    assert rungs["no_stage_1"].data == m3.data == rungs["grpo"].data
    assert rungs["grpo"].settings == m3.settings and rungs["grpo"].start_from == stage_1.name
    by_rule = rungs["value_by_rule"].objective.tasks["value"]
    assert {name: part.weight for name, part in by_rule.parts.items()} == {
        "format": 0.2, "value": 0, "world": 1} and not by_rule.monitor
    assert rungs["value_by_rule"].data == m3.data
    efficient = rungs["safe_efficient_rl"]
    for name in ("no_canon", "length_penalty"):
        assert rungs[name].start_from == "m3_rl" and rungs[name].settings == efficient.settings
    searching = rungs["deliberative_search_rl"]
    for name in ("unconstrained", "fixed_lambda"):
        arm = rungs[name]
        assert (arm.data, arm.settings, arm.environment) == (
            searching.data, searching.settings, searching.environment)
    assert rungs["unconstrained"].objective.initial == 0 and searching.objective.multiplier == (
        "adaptive")
    assert all(rungs[name].baseline for name in (
        "sft_only", "no_stage_1", "single_objective", "grpo", "value_by_rule", "no_canon",
        "length_penalty", "unconstrained", "fixed_lambda"))


def test_the_full_climb_is_the_climb_with_a_larger_budget():
    small, full = load_recipe("climb", []), load_recipe("climb_full", [])
    for rung in small.rungs:
        larger = full.by_name[rung.name]
        assert larger.settings.num_steps > rung.settings.num_steps
        kept = {"type", "objective", "gates", "environment", "start_from"}
        if rung.name != "safe_efficient_rl":
            kept.add("algorithm")
        assert larger.model_dump(include=kept) == rung.model_dump(include=kept)
        free = {"count", "weight"} if rung.name == "safe_efficient_rl" else {"count"}
        ours, theirs = ([source.model_dump(exclude=free) for source in one.data]
                        for one in (rung, larger))
        if rung.name == "search_warm_up":  # the form as taught there; its own answers besides
            assert [one for one in theirs if one["type"] != "own_answers" and one.get("seed") != 34
                    ] == [one for one in ours if one["type"] != "microworld"]
            assert [(one["rung"], one["keep"], one["last"], one["minimum"]) for one in theirs
                    if one["type"] == "own_answers"] == [
                ("m3_rl", "all", 60, 1.1), ("safe_efficient_rl", "all", 60, 1.1)]
        else:
            assert ours == theirs  # the same sources in the same order
            assert all(a.count <= b.count for a, b in zip(rung.data, larger.data, strict=True))
    assert full.by_name["safe_efficient_rl"].algorithm == {
        "preset": "cpgd", "advantage": {"type": "canon_eff", "mu": 0.5, "alpha": 0.85}}
    assert [rung.name for rung in full.rungs if rung.name not in small.by_name] == [
        "sft_only", "stronger_canon", "no_canon", "length_penalty", "soft_overlong",
        "sft_shortest"]
    assert full.by_name["sft_only"].data == full.by_name["cot_sft"].data
    arms = {name: full.by_name[name] for name in ("no_canon", "length_penalty", "soft_overlong")}
    assert {name: arm.algorithm.get("overlong") for name, arm in arms.items()} == {
        "no_canon": None, "length_penalty": {"type": "length_penalty", "coef": 0.1},
        "soft_overlong": {"type": "soft_overlong", "cache_share": 0.9}}
    for arm in arms.values():
        assert arm.start_from == "m3_rl" and arm.algorithm["advantage"] == {"type": "dr_grpo"}
        assert arm.data == full.by_name["safe_efficient_rl"].data
        assert arm.settings == full.by_name["safe_efficient_rl"].settings
    stronger, efficient = full.by_name["stronger_canon"], full.by_name["safe_efficient_rl"]
    assert stronger.algorithm["advantage"] == {"type": "canon_eff", "mu": 0.5, "alpha": 0.7}
    assert (stronger.start_from, stronger.data, stronger.settings) == (
        "m3_rl", efficient.data, efficient.settings)
    (shortest,) = full.by_name["sft_shortest"].data
    assert (shortest.rung, shortest.keep, shortest.minimum) == ("m3_rl", "shortest", 1.1)
    assert full.by_name["sft_shortest"].start_from == "m3_rl"
    sets = {one.name: one for one in full.evaluation.sets}
    assert sets["test"] == small.evaluation.sets[0]
    assert sets["unseen"].data[0].split == "unseen_forms" and sets["search"] == (
        small.evaluation.sets[1])


def test_own_answers_are_of_an_rl_rung_that_comes_before(tmp_path):
    path = tmp_path / "mine.yaml"
    head = "extends: first_climb\nname: mine\nrungs:\n  - "
    rehearse = ("{name: rehearsal, like: cot_sft, data: [{type: own_answers, rung: %s}]}")
    path.write_text(head + rehearse % "logic_rl")
    assert load_recipe(str(path), []).rungs[-1].data[0].rung == "logic_rl"
    split = ("{name: rehearsal, like: cot_sft, data: [{type: split, part: a, fractions: {a: 1}, "
             "of: {type: own_answers, rung: logic_rl}}]}")
    path.write_text(head + split)
    with pytest.raises(ConfigError, match="and into no split"):
        load_recipe(str(path), [])
    for wrong in ("cot_sft", "rehearsal", "nothing"):
        path.write_text(head + rehearse % wrong)
        with pytest.raises(ConfigError, match=f"own_answers of '{wrong}', but no rung of type rl"):
            load_recipe(str(path), [])
    path.write_text(head + "{name: more, like: logic_rl, data: [{type: own_answers, "
                    "rung: logic_rl}]}")
    with pytest.raises(ConfigError, match="belong into the data of a rung of type sft"):
        load_recipe(str(path), [])
    path.write_text(head + rehearse % "logic_rl")
    with pytest.raises(ConfigError, match=r"of 'logic_rl', but no rung of type rl, .* trace_every"):
        load_recipe(str(path), ["rungs.logic_rl.settings.trace_every=0"])
    for place in ("evaluation.validation", "evaluation.sets.0.data", "rungs.rehearsal.validation"):
        with pytest.raises(ConfigError, match="are to imitate, not to evaluate or validate with"):
            load_recipe(str(path), [f"{place}=[{{type: own_answers, rung: logic_rl}}]"])


def test_a_rung_is_written_by_its_difference_from_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: first_climb\nname: mine\nrungs:\n"
                    "  - {name: logic_rl, gates: [{figure: format, minimum: 0.5}]}\n"
                    "  - {name: short, like: logic_rl, baseline: true, start_from: cot_sft,\n"
                    "     algorithm: {preset: grpo, kl: null}, settings: {num_steps: 7}}\n"
                    "  - {name: shorter, like: short, settings: {num_steps: 3}}\n")
    rungs = load_recipe(str(path), []).by_name
    long, short, shorter = rungs["logic_rl"], rungs["short"], rungs["shorter"]
    assert long.gates and not short.gates  # what a rung must hold is its own
    assert short.baseline and not shorter.baseline
    assert short.settings == long.settings.model_copy(update={"num_steps": 7})
    assert short.data == long.data and short.algorithm == {"preset": "grpo", "kl": None}
    assert shorter.settings.num_steps == 3 and shorter.algorithm == short.algorithm
    assert shorter.start_from == "cot_sft"
    path.write_text("extends: first_climb\nname: mine\nrungs:\n  - {name: x, like: logik_rl}\n")
    with pytest.raises(ConfigError, match=r"rungs.x.like: no rung before it is named 'logik_rl'"):
        load_recipe(str(path), [])


def test_overrides_of_a_rung_reach_those_that_are_like_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: first_climb\nname: mine\nrungs:\n"
                    "  - {name: short, like: logic_rl, settings: {max_tokens: 77}}\n"
                    "  - {name: shorter, like: short}\n")

    def rungs(*overrides):
        recipe = load_recipe(str(path), list(overrides))
        written = tmp_path / "recipe.yaml"  # as the run directory holds it
        written.write_text(dump_recipe(recipe))
        assert load_recipe(str(written), []) == recipe
        return [recipe.by_name[name] for name in ("logic_rl", "short", "shorter")]

    def steps(*overrides):
        return [rung.settings.num_steps for rung in rungs(*overrides)]
    usual = steps()[0]
    assert steps() == [usual] * 3
    assert steps("rungs.logic_rl.settings.num_steps=3") == [3, 3, 3]
    assert steps("rungs.2.settings.num_steps=3") == [3, 3, 3]
    assert steps("rungs.short.settings.num_steps=3") == [usual, 3, 3]
    assert steps("rungs.shorter.settings.num_steps=3") == [usual, usual, 3]
    # in any order the nearest wins
    both = ["rungs.short.settings.num_steps=4", "rungs.logic_rl.settings.num_steps=3"]
    assert steps(*both) == steps(*both[::-1]) == [3, 4, 4]
    # what a rung says in the file is nearer than the other one's override
    lengths = [rung.settings.max_tokens for rung in rungs("rungs.logic_rl.settings.max_tokens=9")]
    assert lengths == [9, 77, 77]
    # through what was taken over, a list too; others keep theirs
    data = [rung.data for rung in rungs("rungs.short.data.0.count=7")]
    assert [[one.count for one in each] for each in data] == [[1000, 1000], [7, 1000], [7, 1000]]
    assert rungs("rungs.shorter.like=logic_rl")[2].settings.max_tokens != 77
    assert [bool(rung.gates) for rung in rungs(
        "rungs.logic_rl.gates=[{figure: format, minimum: 0.5}]")] == [True, False, False]
    for wrong in ("rungs.shrot.settings.num_steps=3", "rungs.9.seed=1"):
        with pytest.raises(ConfigError, match=r"override 'rungs\.(shrot|9)\..*': no item"):
            rungs(wrong)


def test_a_row_says_whether_every_message_of_the_assistant_is_imitated(tmp_path):
    renderer = Renderer(train_tokenizer(["who ? and who ? a b Ann Bob"], 300))
    said = [{"role": "user", "content": "who ?"},
            {"role": "assistant", "content": "<think> a </think> Ann"},
            {"role": "user", "content": "and who ?"},
            {"role": "assistant", "content": "<think> b </think> Bob"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": said, **more}) + "\n"
                            for more in ({}, {"imitate": "all"})))
    last, every = supervised_rows(
        build_source({"type": "jsonl", "path": str(path)}), renderer)
    assert last.token_ids.tolist() == every.token_ids.tolist()
    # the first answer, too: think tags, thought, name and the end of the turn
    both, one = every.mask != 0, last.mask != 0
    assert (both & one).sum() == one.sum() and both.sum() == 2 * one.sum()
    path.write_text(json.dumps({"messages": said, "imitate": "ALL"}))
    with pytest.raises(DataError, match="imitate is 'last' or 'all', not 'ALL'"):
        supervised_rows(build_source({"type": "jsonl", "path": str(path)}), renderer)


def test_a_rung_imitates_the_shortest_right_answers_of_a_run(finished_run):
    rng = random.Random(0)
    puzzles = [draw_puzzle(rng, 2 + i % 2, "train") for i in range(200)]
    renderer = Renderer(train_tokenizer(
        [f"{puzzle_text(p)} {response_text(p, 'check')}" for p in puzzles], 512))
    spec = TraceAnswersSource(type="trace_answers",
                              path=str(finished_run / "traces/logic_rl-train-*.parquet"))
    prompts, rows = build_source(spec), supervised_rows(load_prompts([spec]), renderer)
    assert len(rows) == len(prompts) == len({prompt.id for prompt in prompts}) > 4
    for prompt, row in zip(prompts, rows, strict=True):
        # What is trained on is the response behind the think tag that the template pre-fills.
        ids = row.token_ids[row.mask == 1].tolist()
        whole = renderer.encode(prompt.messages[-1].text)
        assert ids == [*whole[1:], renderer.end_of_turn_id]
        assert prompt.messages[-1].text.startswith("<think>")
