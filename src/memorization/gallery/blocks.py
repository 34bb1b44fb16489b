"""Generated blocks: pictures, figures with times and verdicts, claims, deviations, the rule graph."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from memorization.claims.page import MARKS, counts, criterion, interval, number
from memorization.config import read_yaml
from memorization.errors import UserError
from memorization.gallery.pages import minutes, table
from memorization.gallery.runs import Catalog, rows_of, total_seconds


def gallery_block(catalog: Catalog, shown: Mapping[str, Sequence[str]]) -> str:
    """The pictures of each paper, two a row, each with its number and title."""
    parts = []
    for paper, names in shown.items():
        pictures = [
            f'<td width="50%"><img src="docs/gallery/{name}.png" alt="{catalog[name].title}"><br>'
            f"{catalog[name].source}: {catalog[name].title}</td>"
            for name in names
        ]
        rows = ["<tr>\n" + "\n".join(pictures[i : i + 2]) + "\n</tr>" for i in range(0, len(pictures), 2)]
        parts.append(f"[`{paper}`](docs/{paper}.md)\n\n<table>\n" + "\n".join(rows) + "\n</table>")
    return "\n\n".join(parts)


def figures_block(catalog: Catalog, ledger: pd.DataFrame, seconds: dict[str, float], results: Path, scale: str) -> str:
    """A table a paper: figure, command, time, claims with verdicts."""
    parts = [f"Scale `{scale}`."]
    for paper in dict.fromkeys(entry.paper for entry in catalog.values()):
        records, rows = rows_of(ledger, paper), []
        for name, entry in catalog.items():
            if entry.paper != paper:
                continue
            about = [row for row in records if name in re.split(r",\s*", row["tables"])]
            claims = ", ".join(f"{MARKS[row['verdict']]} {row['claim']}" for row in about)
            rows.append([f"{entry.source}: {entry.title}", f"`snakemake {name}`", minutes(seconds[name]), claims])
        tally = ", ".join(f"{MARKS[v]} {n} {v}" for v, n in counts(records).items())
        parts.append(f"[`{paper}`](docs/{paper}.md). Claims: {tally}.")
        parts.append(table(["figure", "command", "time", "claims it bears on"], rows))
    jobs, total = total_seconds(results)
    parts.append(
        "Time: wall time of the figure's training, decoding, table and drawing jobs, added up as if one ran after "
        f"another (figures share runs). The whole scale: {jobs} jobs, {minutes(total)}."
    )
    return "\n\n".join(parts)


def claims_block(ledger: pd.DataFrame, paper: str, scale: str) -> str:
    """One row a claim: what was claimed, measured, published, and the verdict with its reason."""
    rows = []
    for row in rows_of(ledger, paper):
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
    header = ["claim", "statement", "claimed", f"measured at `{scale}`", "published", "verdict", "why this verdict"]
    return table(header, rows)


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
