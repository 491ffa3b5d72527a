import io
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from safeladder.cli.doctor import (
    EXTRAS,
    Check,
    doctor_report,
    folder_check,
    installed_version,
    render,
    threads_check,
    waiting_check,
)

ROOT = Path(__file__).parents[3]


def test_every_extra_of_the_package_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    offered = set(project["optional-dependencies"]) - {"test", "dev"}
    assert {extra.name for extra in EXTRAS} == offered


def test_the_report_covers_every_group_and_finds_this_installation_sound(tmp_path: Path) -> None:
    checks = doctor_report(tmp_path)
    assert list(dict.fromkeys(check.group for check in checks)) == [
        "versions", "processor", "devices", "memory", "folders", "extras"]
    found = {(check.group, check.name): check for check in checks}
    assert found["versions", "torch"].value == installed_version("torch")
    assert found["devices", "cpu"].state == "ok"
    assert found["extras", "remote"].state == "ok"
    assert [check for check in checks if check.group == "versions" and check.state != "ok"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_gives_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    for extra in EXTRAS:
        for name in extra.modules:
            monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    checks = {c.name: c for c in doctor_report() if c.group == "extras"}
    assert checks["wandb"].state == "note"
    assert checks["wandb"].advice == "pip install 'safeladder[wandb]'"
    assert "Weights & Biases" in checks["wandb"].value


@pytest.mark.parametrize(("setting", "state"), [
    (None, "ok"), ("2", "ok"), ("3", "note"), ("0", "problem"), ("many", "problem")])
def test_thread_counts(setting: str | None, state: str) -> None:
    assert threads_check(setting, usable=2).state == state


@pytest.mark.parametrize(("setting", "state"), [
    (None, "ok"), ("PASSIVE", "ok"), ("passive", "ok"), ("ACTIVE", "note")])
def test_waiting_policies(setting: str | None, state: str) -> None:
    assert waiting_check(setting).state == state


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = folder_check("runs", tmp_path / "file")
    assert (check.state, check.advice) == ("problem", "choose another with --out")
    assert folder_check("runs", tmp_path / "new" / "deeper").state == "ok"
    assert not (tmp_path / "new").exists()


def test_an_unknown_package_has_no_version() -> None:
    assert installed_version("no-such-package-here") is None


def test_the_table_shows_advice_under_its_line() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(render([
        Check("folders", "runs", "[runs]: 3 GiB", "problem", "choose another"),
        Check("extras", "peft", "installed")]))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[0].split() == ["folders", "!!", "runs", "[runs]:", "3", "GiB"]
    assert lines[1].strip() == "-> choose another"
    assert lines[3].split() == ["extras", "ok", "peft", "installed"]
