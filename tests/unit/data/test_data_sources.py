import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safeladder.data.files import write_verl_parquet
from safeladder.data.knights_knaves.published import write_knights_knaves
from safeladder.data.sources import build_source, load_sources
from safeladder.errors import ConfigError, DataError, MissingExtra
from safeladder.types import Media, Message, Prompt


def jsonl(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl(tmp_path):
    path = jsonl(tmp_path / "set" / "train.jsonl", {"prompt": "a", "answer": "1"},
                 {"prompt": "b", "answer": "2"})
    prompts = build_source({"type": "jsonl", "path": str(path)})
    assert [(p.id, p.messages[0].text, p.reference) for p in prompts] == [
        ("set/train:0", "a", "1"), ("set/train:1", "b", "2")]
    again = build_source({"type": "jsonl", "path": "train.jsonl", "source": "s", "limit": 1,
                          "task": "math"}, base=tmp_path / "set")
    assert [(p.id, p.source, p.task) for p in again] == [("s:0", "s", "math")]


def test_files_by_pattern_come_in_name_order_with_images_beside_them(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(name.encode())
        jsonl(tmp_path / name / "rows.jsonl", {"prompt": name, "image": "x.png"})
    prompts = build_source({"type": "jsonl", "path": "*/rows.jsonl", "source": "s"}, tmp_path)
    assert [p.messages[0].text for p in prompts] == ["a", "b"]
    assert [p.media[0].path for p in prompts] == [str(tmp_path / n / "x.png") for n in "ab"]


@pytest.mark.parametrize(("line", "problem"), [
    ('{"prompt": "a"', ":2, column 15: not JSON"), ('["a"]', ":2: expected an object"),
    ('{"answer": "a"}', ":2: no prompt"), ('{"prompt": "b"}', ":2: no reference"),
])
def test_a_bad_line_is_named(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "answer": 1}\n' + line + "\n")
    with pytest.raises(DataError, match=f"^{path}{problem}"):
        build_source({"type": "jsonl", "path": str(path)})


def test_blank_lines_count_but_are_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"promt": "b"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:3: no prompt"):
        build_source({"type": "jsonl", "path": str(path)})
    path.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:1: not UTF-8"):
        build_source({"type": "jsonl", "path": str(path)})


def test_files_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(DataError, match=r"none.jsonl: no such file"):
        build_source({"type": "jsonl", "path": str(tmp_path / "none.jsonl")})
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="has no rows"):
        build_source({"type": "jsonl", "path": str(tmp_path / "empty.jsonl")})
    (tmp_path / "text.parquet").write_text("not a parquet file")
    with pytest.raises(DataError, match=r"text.parquet: not a Parquet file"):
        build_source({"type": "parquet", "path": str(tmp_path / "text.parquet")})


def test_reference_may_be_optional_or_required(tmp_path):
    path = str(jsonl(tmp_path / "rows.jsonl", {"prompt": "a", "answer": 1}, {"prompt": "b"}))
    rows = build_source({"type": "jsonl", "path": path, "reference": "optional"})
    assert [p.reference for p in rows] == [1, None]
    bare = str(jsonl(tmp_path / "bare.jsonl", {"prompt": "a"}))
    assert build_source({"type": "jsonl", "path": bare})[0].reference is None
    with pytest.raises(DataError, match=r"bare.jsonl:1: no reference"):
        build_source({"type": "jsonl", "path": bare, "reference": "required"})


def test_repeated_ids_are_told_apart(tmp_path):
    # Files of several years joined together count their rows anew.
    rows = [{"id": i, "prompt": f"p{year}{i}"} for year in (22, 23) for i in range(2)]
    prompts = build_source({"type": "jsonl", "path": str(jsonl(tmp_path / "r.jsonl", *rows)),
                            "source": "amc"})
    assert [p.id for p in prompts] == ["amc:0", "amc:1", "amc:0#2", "amc:1#2"]


def test_plain_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"question": ["a", "b"], "answer": [1.5, None]}), path)
    with pytest.raises(DataError, match=r"x.parquet, row 1: no reference"):
        build_source({"type": "parquet", "path": str(path)})
    pq.write_table(pa.table({"question": ["a", "b"], "answer": [1.5, 2]}), path)
    prompts = build_source({"type": "parquet", "path": str(path)})
    assert [p.reference for p in prompts] == [1.5, 2]


def test_published_files_read_back_equal_the_generator(tmp_path):
    write_knights_knaves(2, "test", tmp_path / "kk.parquet")
    read = build_source({"type": "parquet", "path": str(tmp_path / "kk.parquet")})
    made = build_source({"type": "knights_knaves", "people": 2, "split": "test",
                         "template": "instruct"})
    for a, b in zip(read, made, strict=True):
        assert (a.rendered, a.messages, a.reference, a.source, a.task) == (
            b.rendered, b.messages, b.reference, b.source, b.task)
    assert read[0].rendered.count("<|im_start|>user") == 1


def test_verl_parquet_round_trip(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELADDER_CACHE", str(tmp_path / "cache"))
    pixels = np.zeros((2, 2, 3), np.uint8)
    prompts = [
        Prompt("x:1", (Message("system", "s"), Message("user", "q")), {"a": [1]}, "src", "math",
               meta={"level": 2, "tags": ["t"]}),
        Prompt("x:2", (Message("user", ({"type": "image"}, {"type": "text", "text": "?"})),),
               {"a": [2]}, "src", "math", media=(Media(pixels=pixels),)),
        Prompt("x:3", (Message("user", "Who?"),), {"a": [3]}, "src", "logic",
               rendered="<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>"),
    ]
    write_verl_parquet(prompts, tmp_path / "new" / "x.parquet", split="val")
    columns = pq.read_table(tmp_path / "new" / "x.parquet").to_pylist()
    assert columns[0]["prompt"] == [{"content": "s", "role": "system"},
                                    {"content": "q", "role": "user"}]
    assert columns[0]["reward_model"] == {"ground_truth": {"a": [1]}, "style": "rule"}
    assert (columns[0]["data_source"], columns[0]["ability"]) == ("src", "math")
    assert columns[1]["prompt"][0]["content"] == "<image>?"
    assert columns[2]["prompt"] == [{"content": prompts[2].rendered, "role": "user"}]
    assert columns[2]["extra_info"]["split"] == "val"

    read = build_source({"type": "parquet", "path": str(tmp_path / "new" / "x.parquet")})
    assert read[0] == prompts[0] and read[2] == prompts[2]
    assert read[1].messages == prompts[1].messages
    assert read[1].media[0].path.endswith(".png")


def test_verl_parquet_needs_one_type_of_reference(tmp_path):
    prompts = [Prompt(str(i), (Message("user", "q"),), reference=r) for i, r in enumerate((1, "a"))]
    with pytest.raises(DataError, match="several types"):
        write_verl_parquet(prompts, tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_hugging_face_data_set_saved_in_a_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("SAFELADDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from safeladder.data.images import encode_png

    png = {"bytes": encode_png(np.zeros((1, 1, 3), np.uint8)), "path": None}
    rows = datasets.Dataset.from_dict(
        {"problem": ["a", "b"], "answer": ["1", "2"], "images": [[png], []]},
        features=datasets.Features({
            "problem": datasets.Value("string"), "answer": datasets.Value("string"),
            "images": datasets.Sequence(datasets.Image())}))
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(
        str(tmp_path / "two"))
    prompts = build_source({"type": "hf", "id": str(tmp_path / "one")})
    assert [(p.id, p.reference, len(p.media)) for p in prompts] == [
        ("one:0", "1", 1), ("one:1", "2", 0)]
    assert prompts[0].media[0].path.startswith(str(tmp_path / "cache"))
    test = build_source({"type": "hf", "id": "two", "split": "test"}, tmp_path)
    assert [p.reference for p in test] == ["2"]
    with pytest.raises(DataError, match="choose a split: one of train, test"):
        build_source({"type": "hf", "id": "two"}, tmp_path)
    with pytest.raises(DataError, match=r"two: .*validation"):
        build_source({"type": "hf", "id": "two", "split": "validation"}, tmp_path)


def test_reasoning_gym_rows_are_scored_by_their_generator():
    reasoning_gym = pytest.importorskip("reasoning_gym")
    prompts = build_source({"type": "reasoning_gym", "name": "chain_sum", "size": 3, "seed": 5,
                            "config": {"max_terms": 3}, "limit": 2, "task": "math"})
    assert len(prompts) == 2
    origin = prompts[1].meta["reasoning_gym"]
    assert (origin["dataset"], origin["index"]) == ("chain_sum", 1)
    json.dumps(origin)
    scorer = reasoning_gym.create_dataset(origin["dataset"], **origin["config"])
    assert scorer[1]["question"] == prompts[1].messages[0].text == origin["entry"]["question"]
    assert scorer.score_answer(prompts[1].reference, origin["entry"]) == 1.0
    assert prompts[1].task == "math" and prompts[1].source == "reasoning_gym/chain_sum"


@pytest.mark.parametrize(("settings", "problem"), [
    ({"name": "chain_sm"}, "did you mean 'chain_sum'"),
    ({"name": "chain_sum", "config": {"bla": 1}}, "unexpected keyword argument 'bla'"),
    ({"name": "chain_sum", "config": {"min_terms": 0}}, "min_terms must be positive"),
    ({"name": "composite"}, "sources of their own"),
    ({"name": "chain_sum", "config": {"x": object()}}, "JSON values"),
])
def test_reasoning_gym_settings_that_are_wrong(settings, problem):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ConfigError, match=problem):
        build_source({"type": "reasoning_gym", "size": 2, **settings})


@pytest.mark.parametrize("source", [
    {"type": "hf", "id": "some/set"}, {"type": "reasoning_gym", "name": "chain_sum", "size": 1},
])
def test_a_missing_extra_says_what_to_install(source, monkeypatch):
    for name in ("datasets", "reasoning_gym"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'safeladder\[data\]'"):
        build_source(source)


@pytest.mark.parametrize(("spec", "problem"), [
    ({"type": "jsnl", "path": "x"}, "jsnl"), ({"path": "x"}, "type"),
    ({"type": "jsonl", "paht": "x"}, r"paht.*did you mean 'path'"),
    ({"type": "knights_knaves", "people": [3, 9]}, "less than or equal to 8"),
    ({"type": "knights_knaves", "people": 3, "template": "base", "system_prompt": "x"},
     "its own system prompt"),
    ({"type": "knights_knaves", "people": 3, "template": "base", "demonstrations": True},
     "template chat"),
    ({"type": "python", "target": "json:nothing"}, "module:function"),
    ({"type": "python", "target": "json"}, "module:function"),
    ({"type": "split", "of": {"type": "jsonl", "path": "x", "weight": 2}, "part": "a",
      "fractions": {"a": 1}}, "belongs to the split"),
    ({"type": "split", "of": {"type": "knights_knaves", "people": 2}, "part": "b",
      "fractions": {"a": 1}}, "none of a"),
])
def test_specs_that_are_wrong(spec, problem):
    with pytest.raises(ConfigError, match=problem):
        build_source(spec)


def test_a_split_of_a_source_does_not_leak():
    of = {"type": "knights_knaves", "people": [2, 3], "split": "train", "limit": 500}
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2}
    parts = {part: build_source({"type": "split", "of": of, "part": part, "fractions": fractions})
             for part in fractions}
    keys = {part: {p.meta["structure"] for p in rows} for part, rows in parts.items()}
    assert sum(map(len, parts.values())) == 500
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["validation"]
    assert all(len(rows) > 50 for rows in parts.values())


def test_sources_one_after_the_other():
    from safeladder.data.knights_knaves.published_sources import KnightsKnavesSource

    specs = [KnightsKnavesSource(type="knights_knaves", people=(n,), split="eval", limit=2,
                                 system_prompt="Short.") for n in (2, 3)]
    prompts = load_sources(specs)
    assert [p.id for p in prompts] == ["kk2/eval:0", "kk2/eval:1", "kk3/eval:0", "kk3/eval:1"]
    # One's own system prompt stands in the place of the published one.
    assert [m.text for m in prompts[0].messages if m.role == "system"] == ["Short."]


def test_data_is_imported_without_torch():
    code = ("import sys, safeladder.data.sources, safeladder.data.stream; "
            "heavy = {'torch', 'transformers', 'datasets', 'reasoning_gym', 'pyarrow'}; "
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
