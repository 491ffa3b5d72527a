"""The command line: fast help, help in the docs up to date, light imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_help_in_the_docs_is_what_the_commands_say():
    result = subprocess.run([sys.executable, ROOT / "tools/cli_docs.py", "--check"],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", [
    "safeladder.cli.main", "safeladder.config", "safeladder.types", "safeladder.engine.base",
    "safeladder.data.sources", "safeladder.data.stream", "safeladder.verifiers",
])
def test_what_must_be_light_imports_neither_torch_nor_transformers(module):
    code = (f"import sys, {module}; heavy = {{'torch', 'transformers', 'ray', 'datasets'}} & "
            "set(sys.modules); sys.exit(f'imports {heavy}' if heavy else 0)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_command_line_itself_imports_no_data_frame_or_plotting_package():
    code = ("import sys, safeladder.cli.main; heavy = {'numpy', 'pyarrow', 'plotly', 'pydantic'} & "
            "set(sys.modules); sys.exit(f'imports {heavy}' if heavy else 0)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
