from pathlib import Path

import pytest
from run_fixture import make_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run directory; tests that change it take a copy."""
    return make_run(tmp_path_factory.mktemp("runs") / "first_climb-1")
