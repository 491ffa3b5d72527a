"""What is said of an optional dependency that is missing, and of one that is broken."""

from pathlib import Path

import pytest

from safeladder.errors import MissingExtra, import_extra


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingExtra, match=r"charts needs no-such-thing: pip install 'safeladder"):
        import_extra("no_such_thing", "plots", "charts")


def test_a_broken_package_says_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken_thing.py").write_text("import not_there_either\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_either") as caught:
        import_extra("broken_thing", "plots", "charts")
    assert not isinstance(caught.value, MissingExtra)
