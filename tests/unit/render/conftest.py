from typing import Any

import pytest
from render_fixtures import byte_level, metaspace


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return byte_level()


@pytest.fixture(scope="session")
def blank_dropping_tokenizer() -> Any:
    return metaspace()
