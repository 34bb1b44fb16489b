"""Pages made from results: `make gallery` after a run; `python -m memorization.gallery` for what needs none.

In a page, what stands between `<!-- name:begin -->` and `<!-- name:end -->` is written here, by nobody else.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memorization.claims.page import MARKS, counts, criterion, interval, number
from memorization.config import Config, load_config, read_yaml
from memorization.errors import UserError
from memorization.figures.catalog import FigureEntry, load_catalog
from memorization.plan import plan
from memorization.provenance.record import read_provenance, replacing, write_json

SHOWN = ("patterns_fig2a", "patterns_fig3", "patterns_fig2b", "patterns_tab_generalization")  # in the README
WIDTH = 1200  # pixels, at most
SCALES = ("smoke", "laptop", "gpu", "paper")

Catalog = dict[str, FigureEntry]


def refresh(repository: Path, results: Path, scale: str) -> int:
    """Copy pictures to docs/gallery and rewrite the generated blocks of README.md and docs/.

    results: `results/<scale>`. Returns 0; UserError when the run is not complete, before anything is changed.
    """
    config = load_config(repository / "config", {"scale": scale})
    catalog = load_catalog(repository / "config" / "figures.yaml", config)
    ledger = read_ledger(results, scale)
    pictures = [results / "figures" / f"{name}.png" for name in SHOWN]
    missing = [path.name for path in pictures if not path.is_file()]
    if missing:
        raise UserError(f"{results / 'figures'} has no {', '.join(missing)}: run `make figures SCALE={scale}` first")
    record = results_record(results, catalog, scale)
    seconds = {name: figure_seconds(results, name, catalog, config) for name in catalog}

    gallery = repository / "docs" / "gallery"
    for path in pictures:
        shrink(path, gallery / path.name)
    write_json(record, gallery / "provenance.json")
    readme, page = repository / "README.md", repository / "docs" / "patterns.md"
    rewrite(readme, "gallery", gallery_block(catalog))
    rewrite(readme, "figures", figures_block(catalog, ledger, seconds, results, scale))
    rewrite(page, "claims", claims_block(ledger, scale))
    refresh_static(repository)
    print(f"README.md, docs/ and {len(pictures)} pictures are up to date with {results}")
    return 0


def refresh_static(repository: Path) -> None:
    """Rewrite what the repository alone decides: rule graph, table of scales, list of deviations."""
    rewrite(repository / "README.md", "rulegraph", rulegraph_block(draw_rulegraph(repository)))
    rewrite(repository / "docs" / "patterns.md", "scales", scales_block(repository / "config"))
    write(repository / "docs" / "deviations.md", deviations_page(repository / "docs" / "deviations.yaml"))


# ---- files


def write(path: Path, text: str) -> None:
    """Write a page whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def rewrite(path: Path, name: str, content: str) -> None:
    """Replace the block `name` of a page; UserError if the page has no such block."""
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{path} has no block {name}: put `{begin}` and `{end}` where it belongs")
    write(path, f"{before}{begin}\n{content.strip()}\n{end}{after}")


def block(path: Path, name: str) -> str:
    """Content of the block `name` of a page."""
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->", path.read_text("utf-8"), re.DOTALL)
    if not found:
        raise UserError(f"{path} has no block {name}")
    return found[1]


def shrink(source: Path, target: Path, width: int = WIDTH) -> None:
    """Copy a PNG, scaled down to at most `width` pixels; smaller ones keep their size."""
    from PIL import Image

    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


# ---- what a run left behind


def read_ledger(results: Path, scale: str) -> pd.DataFrame:
    """Read claims.csv with empty text as ""; UserError when there is none."""
    path = results / "claims.csv"
    if not path.is_file():
        raise UserError(f"there are no results in {results} (no claims.csv): run `make figures SCALE={scale}` first")
    ledger = pd.read_csv(path)
    text = ["published_note", "reason", "tables", "note"]
    return ledger.assign(**{name: ledger[name].fillna("").astype(str) for name in text})


def rows_of(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the ledger by column name."""
    return [{str(key): value for key, value in row.items()} for row in ledger.to_dict("records")]


def results_record(results: Path, catalog: Catalog, scale: str) -> dict[str, Any]:
    """Where the numbers come from: commit, date and config digest of every table, versions of the newest."""
    notes = {}
    for name, entry in catalog.items():
        path = results / entry.paper / "tables" / f"{name}.parquet"
        if path.is_file():
            notes[name] = read_provenance(path)
    if not notes:
        raise UserError(f"there are no tables below {results}: run `make figures SCALE={scale}` first")
    newest = max(notes.values(), key=lambda note: note["date"])
    return {
        "scale": scale,
        "commit": newest["git"]["commit"],
        "dirty": newest["git"]["dirty"],
        "date": newest["date"],
        "versions": newest["versions"],
        "platform": newest["platform"],
        "tables": {
            name: {"commit": note["git"]["commit"], "date": note["date"], "config": note["config"]}
            for name, note in notes.items()
        },
    }


def benchmark(path: Path) -> float:
    """Wall seconds of the job that wrote a benchmark file; NaN when there is none."""
    if not path.is_file():
        return float("nan")
    return float(pd.read_csv(path, sep="\t")["s"].sum())


def figure_seconds(results: Path, figure: str, catalog: Catalog, config: Config) -> float:
    """Wall seconds of one figure's jobs, added up: training, table, drawing. NaN if one is unknown."""
    entry = catalog[figure]
    names = [name for name, other in catalog.items() if other.paper == entry.paper]
    job = f"{entry.paper}_{names.index(figure) // config.compute.pieces_per_job}.tsv"
    groups = plan(config, entry.paper).groups_for(entry.experiments) if entry.needs else []
    folder = results / "benchmarks"
    paths = [folder / "train" / f"{group}.tsv" for group in groups]
    return sum((benchmark(path) for path in [*paths, folder / "make_tables" / job, folder / "plot" / job]), 0.0)


def total_seconds(results: Path) -> tuple[int, float]:
    """(jobs, their wall seconds added up) of everything a scale has run."""
    paths = sorted((results / "benchmarks").rglob("*.tsv"))
    return len(paths), sum(map(benchmark, paths), 0.0)


# ---- blocks


def cell(text: object) -> str:
    """Text that does not break a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def minutes(seconds: float) -> str:
    """Seconds for a reader; "–" when unknown."""
    if pd.isna(seconds):
        return "–"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def gallery_block(catalog: Catalog) -> str:
    """The pictures, two a row, each with its number and title."""
    pictures = [
        f'<td width="50%"><img src="docs/gallery/{name}.png" alt="{catalog[name].title}"><br>'
        f"{catalog[name].source}: {catalog[name].title}</td>"
        for name in SHOWN
    ]
    rows = ["<tr>\n" + "\n".join(pictures[i : i + 2]) + "\n</tr>" for i in range(0, len(pictures), 2)]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def figures_block(catalog: Catalog, ledger: pd.DataFrame, seconds: dict[str, float], results: Path, scale: str) -> str:
    """Figure, command, time, claims with verdicts."""
    records = rows_of(ledger)
    rows = []
    for name, entry in catalog.items():
        about = [row for row in records if name in re.split(r",\s*", row["tables"])]
        claims = ", ".join(f"{MARKS[row['verdict']]} {row['claim']}" for row in about)
        command = f"`snakemake {name}`"
        rows.append([f"{entry.source}: {entry.title}", command, minutes(seconds[name]), claims])
    tally = ", ".join(f"{MARKS[v]} {n} {v}" for v, n in counts(records).items())
    jobs, total = total_seconds(results)
    return (
        f"Scale `{scale}`. Claims: {tally}.\n\n"
        + table(["figure", "command", "time", "claims it bears on"], rows)
        + "\n\nTime: wall time of the figure's training, table and drawing jobs, added up as if one ran "
        f"after another (figures share runs). The whole scale: {jobs} jobs, {minutes(total)}."
    )


def claims_block(ledger: pd.DataFrame, scale: str) -> str:
    """One row a claim: what was claimed, measured, published, and the verdict with its reason."""
    rows = []
    for row in rows_of(ledger):
        measured = f"{number(row['measured'])} {interval(row['ci_low'], row['ci_high'])}".strip()
        rows.append(
            [
                f"`{row['claim']}`",
                f"{row['statement']} ({row['source']})",
                criterion(row),
                f"{measured}, {row['seeds']:.0f} seed" + "s" * (row["seeds"] != 1),
                number(row["published"]) + (f" ({row['published_note']})" if row["published_note"] else ""),
                f"{MARKS[row['verdict']]} {row['verdict']}",
                row["reason"],
            ]
        )
    header = [
        "claim",
        "statement",
        "claimed",
        f"measured at `{scale}`",
        "published",
        "verdict",
        "why this verdict",
    ]
    return table(header, rows)


def scales_block(folder: Path) -> str:
    """What each scale of `patterns` is, from config/."""
    configs = {name: load_config(folder, {"scale": name}) for name in SCALES}

    def row(label: str, value: Any) -> list[object]:
        return [label, *(value(config) for config in configs.values())]

    def sizes(config: Config) -> str:
        return ", ".join(f"{name} {size.layers}x{size.width}" for name, size in config.patterns.models.items())

    def pairings(config: Config) -> str:
        return ", ".join(f"{model} {items}" for model, items in config.patterns.experiments["pairs"].pairings)

    def alone(config: Config, key: str) -> Any:
        return getattr(config.patterns.experiments["alone"], key)

    rows = [
        row("item length, tokens", lambda c: " to ".join(map(str, c.patterns.lengths))),
        row("prompt + completion", lambda c: f"{c.patterns.prompt} + {c.patterns.completion}"),
        row("models, layers x width", sizes),
        row("items of a set alone", lambda c: ", ".join(map(str, alone(c, "items")))),
        row("batch, alone", lambda c: alone(c, "batch_size") or c.patterns.batch_size),
        row("updates, alone (at most)", lambda c: f"{alone(c, 'steps'):,}"),
        row("model and items of text pairings", pairings),
        row("updates, text pairings", lambda c: f"{c.patterns.experiments['pairs'].steps:,}"),
        row("text", lambda c: f"{c.text.source}, {c.text.vocabulary:,} tokens"),
        row("seeds", lambda c: c.seeds),
        row("training runs", lambda c: len(plan(c, "patterns").runs)),
    ]
    return table(["", *(f"`{name}`" for name in configs)], rows)


def deviations_page(path: Path) -> str:
    """docs/deviations.md from its YAML."""
    lines = [
        "# Deviations",
        "",
        "What differs from the papers, why, and what it may do to the results. Made from",
        "[deviations.yaml](deviations.yaml) by `python -m memorization.gallery`: edit that file.",
        "",
    ]
    for paper, entries in read_yaml(path).items():
        rows = [[f'<a id="{e["id"]}"></a>{e["what"]}', e["paper"], e["here"], e["why"], e["effect"]] for e in entries]
        lines += [
            f"## `{paper}`",
            "",
            table(["what", "the paper", "here", "why", "expected effect"], rows),
            "",
        ]
    return "\n".join(lines)


# ---- the rule graph


def draw_rulegraph(repository: Path) -> str:
    """Ask Snakemake for the rule graph, in mermaid."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    drawn = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    if drawn.returncode:
        raise UserError(f"snakemake cannot draw the rule graph: {drawn.stderr.strip().splitlines()[-1:]}")
    return drawn.stdout


def rulegraph_block(drawn: str) -> str:
    """The graph with one node for all numbered rules of a kind, without the colors."""
    named = {node: re.sub(r"_\d+$", "", rule) for node, rule in re.findall(r"^\s*(\w+)\[(\w+)\]", drawn, re.M)}
    edges = [(named[a], named[b]) for a, b in re.findall(r"^\s*(\w+) --> (\w+)", drawn, re.M)]
    kept = sorted({edge for edge in edges if edge[0] != edge[1]})
    if not kept:
        raise UserError("snakemake drew a rule graph without edges")
    return "\n".join(["```mermaid", "flowchart LR", *(f"    {a} --> {b}" for a, b in kept), "```"])


if __name__ == "__main__":
    from memorization.cli import repository

    try:
        refresh_static(repository())
    except UserError as error:
        sys.exit(f"error: {error}")
    print("README.md and docs/ are up to date with the repository")
