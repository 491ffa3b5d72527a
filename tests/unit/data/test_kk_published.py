import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safeladder.data.knights_knaves.generate import Grammar, Puzzle, published_puzzles
from safeladder.data.knights_knaves.prompts import fresh_prompts, published_prompts
from safeladder.data.knights_knaves.published import (
    published_rows,
    puzzle_columns,
    split_indices,
    write_knights_knaves,
)
from safeladder.data.knights_knaves.solver import difficulty, search, unique_solution
from safeladder.data.knights_knaves.statements import parse_statements
from safeladder.data.knights_knaves.structure import structure_key
from safeladder.data.knights_knaves.text import word_puzzle, word_statement, write_chain_of_thought
from safeladder.errors import ConfigError, DataError, StorageError

IS_KNIGHT, IS_KNAVE = "telling-truth", "lying"

# Taken after every row and column of the train splits of 3 to 7 people was found equal to the
# published files, and every puzzle, text and chain of thought equal to the public generator's.
HASHES = {
    (2, "train"): (200, "a8b53e00070995cb5e0bd419e88432cd"),
    (2, "test"): (100, "30793cd777f1f437207c1aa9c0316c7f"),
    (2, "eval"): (100, "831d6e7d2e21cb3a4aba618df5975921"),
    (3, "train"): (900, "74989f021f13a7849c75aba83630c3b0"),
    (3, "test"): (100, "9a9bc26777a3aaf1824000c4ed6d4f41"),
    (3, "eval"): (100, "4a9237f3d854db8d8c0236d885397165"),
    (4, "train"): (900, "4db02d61d6c89c756b82e8fd3d8ca9ae"),
    (4, "test"): (100, "99e214d513ccfe2bca2a44374bb47e5b"),
    (4, "eval"): (100, "8fc5ce151d9031d6e89a870277219a70"),
    (5, "train"): (900, "9cf71ff997c60f92594c9d202075e490"),
    (5, "test"): (100, "d11277b69114ec29c943488ae742072a"),
    (5, "eval"): (100, "998b009b2e3e5a04f6e2e636d305aadb"),
    (6, "train"): (900, "7913ed54fb07029bd465c4ae0e3841ac"),
    (6, "test"): (100, "b09c99ccf986f19c9c33d846dfed3501"),
    (6, "eval"): (100, "7f5f6dccb7cd31cca677588ef3554703"),
    (7, "train"): (900, "2ff598084e1e1a92519669561693109d"),
    (7, "test"): (100, "f52afd78c01c84909f573f0807256a8b"),
    (7, "eval"): (100, "a5a620ddd68e6f1bdd14f92c290a28f4"),
    (8, "train"): (900, "7f918033ab60f7a61266034d73917eaa"),
    (8, "test"): (100, "ae5d6bb1285b9d81bb3a4d52e1973082"),
    (8, "eval"): (100, "d581761ad2a4787dc2b248d45af89dfc"),
}


@pytest.mark.parametrize(("people", "split"), list(HASHES))
def test_published_rows_are_rebuilt_to_the_letter(people, split):
    digest, count = hashlib.sha256(), 0
    for row in published_rows(people, split):
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        count += 1
    assert (count, digest.hexdigest()[:32]) == HASHES[people, split]


def test_first_train_row_of_three_people():
    row = next(published_rows(3, "train"))
    assert row["quiz"] == (
        "A very special island is inhabited only by knights and knaves. Knights always tell the "
        "truth, and knaves always lie. You meet 3 inhabitants: Michael, Zoey, and Ethan. Michael "
        'was heard saying, "Ethan is a knight if and only if Michael is a knight". "Zoey is a '
        'knight or Ethan is a knight," Zoey mentioned. Ethan asserted: "Michael is a knave if and '
        'only if Zoey is a knave". So who is a knight and who is a knave?')
    assert row["solution"] == [True, True, True]
    assert row["solution_text"] == (
        "Michael is a knight, Zoey is a knight, and Ethan is a knight.")
    assert row["solution_text_format"] == (
        "(1) Michael is a knight\n(2) Zoey is a knight\n(3) Ethan is a knight")
    assert row["index"] == 100
    assert row["extra_info"] == {"index": 0, "split": "train"}
    assert list(row) == [
        "quiz", "names", "knight_knave", "solution", "solution_text", "solution_text_format",
        "cot_head", "cot_repeat_steps", "cot_foot", "statements", "index", "data_source", "prompt",
        "ability", "reward_model", "extra_info"]


def test_splits_are_as_published_and_apart():
    assert split_indices(5, "train") == range(100, 1000)
    assert split_indices(5, "test") == range(1000, 1100)
    assert split_indices(8, "test") == range(1000, 1100)
    assert split_indices(2, "train") == range(100, 300)
    assert split_indices(2, "test") == split_indices(2, "eval") == range(100)
    with pytest.raises(ConfigError, match="2 to 8"):
        split_indices(9, "train")
    with pytest.raises(ConfigError, match="train, test, eval"):
        split_indices(3, "dev")


def test_every_published_puzzle_has_the_one_solution_that_the_search_finds():
    for people in range(2, 9):
        for puzzle in published_puzzles(people)[::7]:
            assert unique_solution(puzzle.statements) == puzzle.solution
            assert search(puzzle.statements).solution == puzzle.solution


def test_written_files_hold_the_rows_in_the_published_schema(tmp_path):
    rows = list(published_rows(2, "test"))
    assert write_knights_knaves(2, "test", tmp_path / "new" / "kk.jsonl") == 100
    lines = (tmp_path / "new" / "kk.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    write_knights_knaves(2, "test", tmp_path / "kk.parquet")
    table = pq.read_table(tmp_path / "kk.parquet")
    assert table.to_pylist() == rows
    text, flags = pa.string(), pa.list_(pa.bool_())
    assert table.schema.field("solution").type == flags
    assert table.schema.field("index").type == pa.int64()
    assert table.schema.field("prompt").type == pa.list_(
        pa.struct([("content", text), ("role", text)]))
    assert table.schema.field("reward_model").type == pa.struct([
        ("ground_truth", pa.struct([("solution_text_format", text), ("statements", text)])),
        ("style", text)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kk.parquet", "new"]


def test_writing_complains_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"\.parquet or \.jsonl"):
        write_knights_knaves(3, "train", tmp_path / "kk.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        write_knights_knaves(2, "test", tmp_path / "file" / "kk.jsonl")


def test_chain_of_thought_in_words():
    puzzle = ((IS_KNIGHT, 1), (IS_KNAVE, 0), (IS_KNIGHT, 2))
    worded = word_puzzle(puzzle, seed=0)._replace(names=("Ann", "Bob", "Cid"))
    thought = write_chain_of_thought(puzzle, worded)
    assert thought.steps == (
        "Assume Ann is a knight. No contradiction is found in their claim that Bob is a knight.",
        "Bob cannot be a knight, because this would contradict the claim of their own that Ann is "
        "a knave.",
        "Bob cannot be a knave, because this would contradict the claim of Ann that Bob is a "
        "knight.",
        "We have exhausted all possibilities for Bob, so let us go back and reconsider Ann.",
        "Assume Ann is a knave. No contradiction is found in their false claim that Bob is a "
        "knight.",
        "Bob cannot be a knight, because this would contradict the false claim of Ann that Bob is "
        "a knight.",
        "Bob cannot be a knave, because this would contradict the false claim of their own that "
        "Ann is a knave.",
    )
    assert thought.foot == "All the configurations lead to contradictions."
    assert thought.text.startswith("Let's think step by step") and "  " not in thought.text


@pytest.mark.parametrize(("said", "text"), [
    (("not", (IS_KNAVE, 0)), "Ann is not a knave"),
    (("and", (IS_KNAVE, 0), (IS_KNIGHT, 1)), "Ann is a knave and Bob is a knight"),
    (("->", (IS_KNAVE, 0), (IS_KNIGHT, 1)), "If Ann is a knave then Bob is a knight"),
    (("xor", (IS_KNAVE, 0), (IS_KNIGHT, 1)),
     "either Ann is a knave or Bob is a knight, but not both"),
])
def test_statements_in_words(said, text):
    roles = word_puzzle(((IS_KNIGHT, 0), (IS_KNIGHT, 1)), 0).roles
    assert word_statement(said, ("Ann", "Bob"), roles) == text


def test_deeper_statements_have_no_wording():
    roles = word_puzzle(((IS_KNIGHT, 0), (IS_KNIGHT, 1)), 0).roles
    with pytest.raises(DataError, match="two levels"):
        word_statement(("not", ("not", (IS_KNIGHT, 0))), ("Ann", "Bob"), roles)


def test_prompts_carry_what_verifiers_and_curricula_need():
    row = next(published_rows(4, "test"))
    prompt = published_prompts(4, "test", "instruct")[0]
    assert prompt.rendered == row["prompt"][0]["content"]
    assert prompt.reference == row["reward_model"]["ground_truth"]
    assert (prompt.source, prompt.task, prompt.id) == ("kk_logic", "logic", "kk4/test:1000")
    puzzle = parse_statements(row["statements"])
    assert difficulty(puzzle) == tuple(prompt.meta[k] for k in ("people", "operators", "steps"))
    assert prompt.meta["structure"] == structure_key(puzzle)
    assert [m.role for m in prompt.messages] == ["system", "user"]
    assert prompt.messages[1].text == row["quiz"]
    plain = published_prompts(4, "test")[0]
    assert plain.rendered is None and plain.messages == prompt.messages
    base = published_prompts(4, "test", "base")[0]
    assert base.rendered.endswith(f"User:{row['quiz']}\nAssistant: <think>")


def test_demonstrations_end_with_a_whole_response():
    row = next(published_rows(3, "test"))
    said = published_prompts(3, "test", demonstrations=True)[0].messages[-1]
    assert said.role == "assistant"
    assert said.text.startswith(f"<think>{row['cot_head']} {row['cot_repeat_steps'][0]}")
    assert said.text.endswith(f"</think>\n<answer>{row['solution_text_format']}</answer>")


def test_fresh_puzzles_are_reproducible_and_not_the_published_ones():
    first = fresh_prompts(3, 40, seed=7)
    assert first == fresh_prompts(3, 40, seed=7)
    assert first[:20] == fresh_prompts(3, 20, seed=7)
    texts = {p.messages[1].text for p in first}
    assert len(texts) == 40
    assert not texts & {p.messages[1].text for p in fresh_prompts(3, 40, seed=8)}
    assert not texts & {row["quiz"] for s in ("train", "test", "eval")
                        for row in published_rows(3, s)}
    with pytest.raises(ConfigError, match="published"):
        fresh_prompts(3, 1, seed=1234)


def test_few_people_run_out_of_puzzles():
    with pytest.raises(DataError, match="no new puzzle of 2 people"):
        fresh_prompts(2, 400, seed=0)
    with pytest.raises(DataError, match="people >= 2"):
        Grammar(1)


def test_columns_of_a_puzzle_with_a_three_way_step_back():
    # "We have exhausted all possibilities for A, B, and C": names joined as the public rows do.
    for row in published_rows(5, "train"):
        long = [s for s in row["cot_repeat_steps"] if s.count(",") == 3 and "exhausted" in s]
        if long:
            assert ", and " in long[0]
            return
    raise AssertionError("no such step in 900 rows")


def test_puzzle_columns_of_a_puzzle_of_ones_own():
    puzzle = Puzzle(((IS_KNAVE, 1), (IS_KNIGHT, 1)), (True, False))
    with_own_words = puzzle_columns(puzzle, 5, text_seed=99)
    assert with_own_words["index"] == 5
    assert with_own_words["names"] != puzzle_columns(puzzle, 5)["names"]
