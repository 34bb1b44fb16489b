"""Small jobs start fast: they import neither torch nor transformers."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIGHT_SCRIPTS = [path for path in sorted((ROOT / "workflow" / "scripts").glob("*.py")) if path.stem != "fetch_asset"]
LIGHT_MODULES = [
    "memorization.cli",
    "memorization.claims.geometry",
    "memorization.claims.layernorm",
    "memorization.claims.ledger",
    "memorization.claims.patterns",
    "memorization.claims.tokenswap",
    "memorization.figures.geometry",
    "memorization.figures.layernorm",
    "memorization.figures.patterns",
    "memorization.figures.tokenswap",
    "memorization.plan",
    "memorization.tables.geometry",
    "memorization.tables.layernorm",
    "memorization.tables.patterns",
    "memorization.tables.tokenswap",
]


def heavy_after(code: str) -> str:
    """Which of the heavy packages a process has imported after `code`."""
    program = f"{code}\nimport sys; print([m for m in ('torch', 'transformers', 'accelerate') if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_a_light_module_stays_light(module):
    assert heavy_after(f"import {module}") == "[]"


@pytest.mark.parametrize("script", LIGHT_SCRIPTS, ids=lambda path: path.stem)
def test_scripts_of_small_jobs_stay_light(script):
    assert heavy_after(f"import runpy; runpy.run_path({str(script)!r}, run_name='script')") == "[]"


def test_reading_the_snakefile_needs_no_pandas_statistics():
    """Every call of snakemake pays for what the Snakefile imports."""
    code = "import memorization.plan, memorization.claims.schema, memorization.figures.catalog, memorization.assets"
    program = f"{code}\nimport sys; print('scipy' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False False"
