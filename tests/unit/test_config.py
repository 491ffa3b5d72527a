"""Overrides and error lines: what, where, the nearest key."""

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safeladder.config import StrictModel, apply_overrides, read_yaml, validate
from safeladder.errors import ConfigError


class Inner(StrictModel):
    learning_rate: float
    steps: int = 3


class Outer(StrictModel):
    name: str
    inner: Inner
    items: tuple[Inner, ...] = ()


def test_what_shares_an_anchor_is_overridden_apart_and_keys_keep_their_order():
    shared = {"steps": 40, "rate": 1}
    data = {"z": {"settings": shared}, "a": {"settings": shared}}
    result = apply_overrides(data, ["z.settings.rate=2"])
    assert result == {"z": {"settings": {"steps": 40, "rate": 2}},
                      "a": {"settings": {"steps": 40, "rate": 1}}}
    assert list(result) == ["z", "a"] and list(result["z"]["settings"]) == ["steps", "rate"]
    assert data["z"]["settings"]["rate"] == 1


def test_overrides_reach_mappings_list_numbers_and_list_names():
    data = {"a": {"b": 1}, "rungs": [{"name": "x", "steps": 1}, {"name": "y", "steps": 2}]}
    changed = apply_overrides(data, ["a.b=2", "a.c=[1, 2]", "rungs.0.steps=5", "rungs.y.steps=6"])
    assert changed == {"a": {"b": 2, "c": [1, 2]},
                       "rungs": [{"name": "x", "steps": 5}, {"name": "y", "steps": 6}]}
    assert data["a"] == {"b": 1}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "expected a.b=value"),
        ("a.b.c=1", "a.b is a value"),
        ("rungs.z.steps=1", "no item 'z'"),
        ("a.b=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_one_line(override, message):
    data = {"a": {"b": 1}, "rungs": [{"name": "x", "steps": 1}]}
    with pytest.raises(ConfigError, match=message) as caught:
        apply_overrides(data, [override])
    assert "\n" not in str(caught.value)


@given(st.text())
def test_no_override_text_escapes_as_another_error(text):
    with contextlib.suppress(ConfigError):
        apply_overrides({"a": {"b": [1]}}, [text])


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"name": "n", "inner": {"learning_rat": 1, "learning_rate": 1}},
         "unknown key 'inner.learning_rat' (did you mean 'learning_rate'?)"),
        ({"name": "n", "inner": {"learning_rate": 1}, "items": [{"stepz": 1, "learning_rate": 1}]},
         "unknown key 'items.0.stepz' (did you mean 'steps'?)"),
        ({"name": "n", "inner": {"learning_rate": "fast"}}, "inner.learning_rate: Input should be"),
        ({"inner": {"learning_rate": 1}}, "name: Field required"),
    ],
)
def test_a_wrong_key_names_itself_and_the_nearest_one(data, line):
    with pytest.raises(ConfigError) as caught:
        validate(Outer, data, "recipe.yaml")
    assert str(caught.value).startswith(f"recipe.yaml: {line}")


def test_files_that_are_no_yaml_say_where(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: 1\nb: [1,\n")
    with pytest.raises(ConfigError, match=r"r\.yaml, line 3"):
        read_yaml(path)
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "missing.yaml")
    path.write_text(yaml.safe_dump({"a": 1}))
    assert read_yaml(path) == {"a": 1}
