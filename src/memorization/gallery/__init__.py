"""Pages made from results: `make gallery` after a run; `python -m memorization.gallery` for what needs none.

What stands between `<!-- name:begin -->` and `<!-- name:end -->` in a page is written here, by nobody else. A paper
has a page, docs/<paper>.md, with blocks `scales` and `claims`; README.md has `gallery`, `figures` and `rulegraph`.
"""

from pathlib import Path

from memorization.config import load_config
from memorization.errors import UserError
from memorization.figures.catalog import load_catalog
from memorization.gallery.blocks import (
    claims_block,
    deviations_page,
    draw_rulegraph,
    figures_block,
    gallery_block,
    rulegraph_block,
)
from memorization.gallery.pages import block, minutes, rewrite, shrink, write
from memorization.gallery.runs import figure_seconds, read_ledger, results_record
from memorization.gallery.scales import scales_block
from memorization.plan import PLANS, plan
from memorization.provenance.record import write_json

__all__ = [
    "SHOWN",
    "block",
    "deviations_page",
    "figure_seconds",
    "load_catalog",
    "load_config",
    "minutes",
    "page_of",
    "plan",
    "refresh",
    "refresh_static",
    "rewrite",
    "rulegraph_block",
    "scales_block",
]

# in the README, by paper
SHOWN = {
    "patterns": ("patterns_fig2a", "patterns_fig3", "patterns_fig2b", "patterns_tab_generalization"),
    "tokenswap": ("tokenswap_fig3", "tokenswap_fig4", "tokenswap_tab2", "tokenswap_x_controls"),
    "layernorm": ("layernorm_fig1", "layernorm_x_budget", "layernorm_fig4", "layernorm_x_norms"),
    "geometry": ("geometry_fig2", "geometry_fig3", "geometry_fig5", "geometry_x_third_phase"),
}
Block = tuple[Path, str, str]  # page, name, content


def page_of(repository: Path, paper: str) -> Path:
    """Page of a paper."""
    return repository / "docs" / f"{paper}.md"


def refresh(repository: Path, results: Path, scale: str) -> int:
    """Copy pictures to docs/gallery and rewrite the generated blocks of README.md and docs/.

    results: `results/<scale>`. Returns 0; UserError when a paper's run is not complete, before anything is changed.
    """
    config = load_config(repository / "config", {"scale": scale})
    catalog = load_catalog(repository / "config" / "figures.yaml", config)
    ledger = read_ledger(results, list(PLANS), scale)
    pictures = [results / "figures" / f"{name}.png" for names in SHOWN.values() for name in names]
    missing = [path.name for path in pictures if not path.is_file()]
    if missing:
        raise UserError(f"{results / 'figures'} has no {', '.join(missing)}: run `make figures SCALE={scale}` first")
    record = results_record(results, catalog, scale)
    seconds = {name: figure_seconds(results, name, catalog, config) for name in catalog}
    readme = repository / "README.md"
    blocks = [
        (readme, "gallery", gallery_block(catalog, SHOWN)),
        (readme, "figures", figures_block(catalog, ledger, seconds, results, scale)),
        *((page_of(repository, name), "claims", claims_block(ledger, name, scale)) for name in PLANS),
        *static_blocks(repository),
    ]
    for path, name, _ in blocks:
        block(path, name)  # or nothing is changed

    gallery = repository / "docs" / "gallery"
    for path in pictures:
        shrink(path, gallery / path.name)
    write_json(record, gallery / "provenance.json")
    put(repository, blocks)
    print(f"README.md, docs/ and {len(pictures)} pictures are up to date with {results}")
    return 0


def refresh_static(repository: Path) -> None:
    """Rewrite what the repository alone decides: rule graph, tables of scales, list of deviations."""
    put(repository, static_blocks(repository))


def static_blocks(repository: Path) -> list[Block]:
    """Blocks that need no results."""
    scales = [(page_of(repository, name), "scales", scales_block(repository / "config", name)) for name in PLANS]
    return [(repository / "README.md", "rulegraph", rulegraph_block(draw_rulegraph(repository))), *scales]


def put(repository: Path, blocks: list[Block]) -> None:
    """Write blocks into their pages, and the page of deviations."""
    for path, name, content in blocks:
        rewrite(path, name, content)
    write(repository / "docs" / "deviations.md", deviations_page(repository / "docs" / "deviations.yaml"))
