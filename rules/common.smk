# Configuration, paths and small helpers that every rule file uses.

import os
import sys
from pathlib import Path

REPOSITORY = Path(workflow.basedir)
# jobs run the code whose digests are taken below, whichever copy of the package is installed
sys.path.insert(0, str(REPOSITORY / "src"))
os.environ.update(PYTHONPATH=os.pathsep.join(sys.path[:1]))

from memorization import __version__
from memorization.claims.schema import read_claims
from memorization.config import check_writable, load_config
from memorization.data.facts import KINDS as FACTS_KINDS
from memorization.data.labelled import KINDS as LABELLED_KINDS
from memorization.data.patterns import KINDS
from memorization.errors import UserError
from memorization.figures.catalog import load_catalog
from memorization.plan import (
    arm_group_spec,
    assets_of,
    encoded,
    geometry_assets,
    geometry_sets,
    group_spec,
    labelled_assets,
    labelled_sets,
    models_of,
    ngram_sets,
    passage_assets,
    passage_sets,
    plan,
    readers,
    training_roots,
)
from memorization.provenance.source import code_params, definitions
from memorization.provenance.record import digest_of, git_state

PAPERS = ["patterns", "tokenswap", "layernorm", "geometry"]

try:
    CONFIG = load_config(REPOSITORY / "config", config)
    check_writable(Path(CONFIG.results))
    CATALOG = load_catalog(REPOSITORY / "config" / "figures.yaml", CONFIG)
    CLAIMS = {paper: read_claims(REPOSITORY / "config" / "claims" / f"{paper}.yaml").claims for paper in PAPERS}
except UserError as error:
    sys.exit(f"error: {error}")

# what the report's texts see
config.update(CONFIG.model_dump(mode="json"))
config["about"] = {"version": __version__, "config": digest_of(config), **git_state()}

ROOT = f"{CONFIG.results}/{CONFIG.scale}"
ASSETS = f"{CONFIG.results}/assets"

PLANS = {paper: plan(CONFIG, paper) for paper in PAPERS}
GROUPS = {group: paper for paper in PAPERS for group in PLANS[paper].groups}
DATA = {job.folder: job for job in PLANS["patterns"].data.values()}
SYNTHETIC = [name for name, job in DATA.items() if job.vocabulary == "characters"]
PASSAGE_SETS = passage_sets(CONFIG, PLANS["tokenswap"])
LABELLED = labelled_sets(CONFIG, PLANS["layernorm"])
FACTS = geometry_sets(CONFIG, PLANS["geometry"])
TEXTUAL = [name for name, job in DATA.items() if job.vocabulary == "text"]


def code(*roots):
    """Digests of all code that `roots` use, as params: a changed function re-plans what uses it, and the reason names it."""
    return {f"code_{i}": value for i, value in enumerate(code_params(roots).values())}


def script_root(name):
    """Path of a rule's script as a root for `code`."""
    return REPOSITORY / "workflow" / "scripts" / f"{name}.py"


def figures_of(paper):
    """Figures of a paper, in the order of config/figures.yaml."""
    return [name for name, figure in CATALOG.items() if figure.paper == paper]


def targets_of(paper):
    """Everything a paper's target makes."""
    return [f"{ROOT}/figures/{figure}.{kind}" for figure in figures_of(paper) for kind in ("pdf", "png", "csv")]


def code_by(roots_of, cells):
    """Like `code`, for jobs with different code under one name; `roots_of(cell)` are the roots of the job of one cell.

    Every definition that any job uses becomes a param that is empty in the jobs that do not use it.
    """
    used = {cell: code_params(roots_of(cell)) for cell in cells}
    names = dict.fromkeys(name for values in used.values() for name in values)

    def digest(name):
        return lambda wildcards: used[next(iter(wildcards))].get(name, "")

    return {f"code_{i}": digest(name) for i, name in enumerate(names)}


def jobs_of(pieces):
    """Split small pieces of work into jobs of `compute.pieces_per_job`: (number of the job, its pieces)."""
    pieces, size = list(pieces), CONFIG.compute.pieces_per_job
    return [(start // size, pieces[start : start + size]) for start in range(0, len(pieces), size)]
