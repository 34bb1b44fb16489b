"""The ledger as Markdown and as one self-contained HTML page (no scripts, nothing loaded from elsewhere)."""

from collections.abc import Sequence
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not tested")
MARKS = {"reproduced": "✓", "contradicted": "✗", "inconclusive": "?", "not tested": "–"}
SIGNS = {"greater": ">", "less": "<", "equivalent": "≈", "ordering": "concordance ≥"}
# The papers by key; a paper that is not here is shown by its key.
TITLES = {
    "patterns": "For Better or for Worse, Transformers Seek Patterns for Memorization",
    "tokenswap": "TokenSwap: A Lightweight Method to Disrupt Memorized Sequences in LLMs",
    "layernorm": "Impact of Layer Norm on Memorization and Generalization in Transformers",
    "geometry": "Tracing the Representation Geometry of Language Models from Pretraining to Post-training",
}

HOW_TO_READ = (
    "Every claim, its test and its threshold were written down before the run. “Reproduced”: the "
    "interval over seeds lies wholly on the claimed side and the P value, corrected over the paper's "
    "tested claims (Holm), is small enough. “Contradicted”: the same for the contrary. “Inconclusive”: "
    "neither, so the data allow both answers. “Not tested”: no or too few runs. Measured values are "
    "means over seeds with their interval; “items” is the interval over items under the same seeds, "
    "which answers another question. An experiment of another size than the paper's can miss an effect "
    "that exists at the paper's size."
)


def number(value: Any, digits: int = 3) -> str:
    """A number for a reader: 3 significant digits, no exponent where avoidable, "–" for nothing."""
    if value is None or pd.isna(value):
        return "–"
    text = f"{float(value):.{digits}g}"
    return f"{float(value):,.0f}" if "e+" in text else text


def interval(low: Any, high: Any) -> str:
    """`[low, high]`, or nothing if there is none."""
    return "" if pd.isna(low) or pd.isna(high) else f"[{number(low)}, {number(high)}]"


def edges(row: dict[str, Any]) -> list[float]:
    """Where verdicts change: the threshold, or both margins of an equivalence."""
    threshold, margin = float(row["threshold"]), row["margin"]
    if row["direction"] != "equivalent":
        return [threshold]
    return (
        [threshold / margin, threshold * margin]
        if row["transform"] == "log"
        else [threshold - margin, threshold + margin]
    )


def criterion(row: dict[str, Any]) -> str:
    """What was claimed of the statistic, e.g. `> 1` or `≈ 1 (× 1.5)`."""
    text = f"{SIGNS[row['direction']]} {number(row['threshold'])}"
    if row["direction"] == "equivalent":
        text += f" ({'× or ÷' if row['transform'] == 'log' else '±'} {number(row['margin'])})"
    return text


def power(row: dict[str, Any]) -> str:
    """What the seeds could have shown, as a sentence; empty where the spread does not tell."""
    effect = row["minimum_detectable_effect"]
    if pd.isna(effect):
        return ""
    size = f"a {'factor' if row['transform'] == 'log' else 'distance'} of {number(effect)}"
    if row["direction"] == "equivalent":
        return f"With this spread, exact equality shows in 4 of 5 runs at a margin of {size}."
    return f"With this spread, {size} from the threshold shows in 4 of 5 runs, before the correction."


def counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many claims have each verdict, all verdicts present."""
    return {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}


def by_paper(ledger: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Rows of each paper, in the order of the ledger."""
    papers: dict[str, list[dict[str, Any]]] = {}
    for row in ledger.to_dict("records"):
        papers.setdefault(str(row["paper"]), []).append({str(key): value for key, value in row.items()})
    return papers


def markdown(ledger: pd.DataFrame) -> str:
    """One table a paper: verdict, statement, measured and published value, reason."""
    lines = ["# Claims", "", HOW_TO_READ, ""]
    for paper, rows in by_paper(ledger).items():
        tally = ", ".join(f"{n} {verdict}" for verdict, n in counts(rows).items())
        lines += [f"## {TITLES.get(paper, paper)} (`{paper}`, scale {rows[0]['scale']})", "", f"{tally}.", ""]
        lines += [
            "| | verdict | claim | measured | claimed | published | why this verdict |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            measured = f"{number(row['measured'])} {interval(row['ci_low'], row['ci_high'])}".strip()
            cells = [
                row["claim"],
                f"{MARKS[row['verdict']]} **{row['verdict']}**",
                f"{row['statement']} ({row['source']})",
                f"{measured}, {number(row['seeds'])} seeds",
                criterion(row),
                " ".join(filter(None, [number(row["published"]), str(row["published_note"] or "")])),
                f"{row['reason']} {row['note'] or ''}".strip(),
            ]
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def sketch(row: dict[str, Any]) -> str:
    """SVG: interval (bar), mean (dot), published value (ring), threshold (dashes); "" if no scale."""
    keys = ("measured", "ci_low", "ci_high", "published")
    shown = {key: float(row[key]) for key in keys if pd.notna(row[key])}
    shown |= {f"edge{i}": edge for i, edge in enumerate(edges(row))}
    low, high = min(shown.values()), max(shown.values())
    if "measured" not in shown or low == high:
        return ""
    x = {key: f"{8 + 124 * (value - low) / (high - low):.1f}" for key, value in shown.items()}
    marks = "".join(
        f'<line class="edge" x1="{x[key]}" x2="{x[key]}" y1="1" y2="21"/>' for key in x if key.startswith("edge")
    )
    if "ci_low" in x and "ci_high" in x:
        marks += f'<line class="bar" x1="{x["ci_low"]}" x2="{x["ci_high"]}" y1="11" y2="11"/>'
    marks += f'<circle class="dot" cx="{x["measured"]}" cy="11" r="3.2"/>'
    if "published" in x:
        marks += f'<circle class="ring" cx="{x["published"]}" cy="11" r="4.5"/>'
    return f'<svg width="140" height="22" aria-hidden="true">{marks}</svg>'


def html(ledger: pd.DataFrame) -> str:
    """The page. Verdicts carry a sign and a word besides their color, and it prints in black and white."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": number,
        "sketch": lambda row: Markup(sketch(row)),
    }
    environment.globals |= {
        "interval": interval,
        "criterion": criterion,
        "counts": counts,
        "marks": MARKS,
        "power": power,
    }
    return environment.from_string(TEMPLATE).render(
        papers=by_paper(ledger), titles=TITLES, how_to_read=HOW_TO_READ, css=STYLE
    )


STYLE = """
:root { --ink: #1f2328; --muted: #59636e; --rule: #d8dee4; --yes: #1a6b3c; --no: #a3232b; --open: #7a5a00; --none: #59636e; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
  background: #fff; margin: 0 auto; max-width: 1280px; padding: 32px 28px 48px; }
h1 { font-size: 26px; margin: 0 0 8px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 34px 0 2px; }
p.lead { max-width: 100ch; color: var(--muted); margin: 0; }
p.sub { color: var(--muted); margin: 0 0 12px; }
.tally { display: flex; flex-wrap: wrap; gap: 8px; margin: 0 0 14px; padding: 0; list-style: none; }
.badge { display: inline-block; white-space: nowrap; font-size: 13px; font-weight: 600; line-height: 1.35;
  border: 1.5px solid currentColor; border-radius: 999px; padding: 2px 10px; }
.reproduced { color: var(--yes); } .contradicted { color: var(--no); }
.inconclusive { color: var(--open); border-style: dashed; } .not-tested { color: var(--none); border-style: dotted; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th { text-align: left; font-size: 12.5px; color: var(--muted); font-weight: 600; border-bottom: 1.5px solid var(--ink);
  padding: 6px 14px 6px 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--rule); padding: 11px 14px 11px 0; vertical-align: top; }
col.verdict { width: 150px; } col.claim { width: 34%; } col.value { width: 235px; }
.id { font-size: 12.5px; color: var(--muted); margin-top: 4px; }
small { display: block; color: var(--muted); font-size: 12.5px; line-height: 1.45; margin-top: 3px; overflow-wrap: anywhere; }
.measured { font-variant-numeric: tabular-nums; font-weight: 600; }
.measured span { font-weight: 400; }
svg { display: block; margin: 3px 0 1px; }
.bar { stroke: var(--ink); stroke-width: 2; } .dot { fill: var(--ink); }
.ring { fill: none; stroke: var(--ink); stroke-width: 1.2; } .edge { stroke: var(--muted); stroke-dasharray: 3 2; }
details { font-size: 12.5px; color: var(--muted); margin-top: 4px; } summary { cursor: pointer; }
details p { margin: 4px 0 0; }
footer { margin-top: 28px; color: var(--muted); font-size: 12.5px; }
@media (max-width: 800px) { table, tbody, tr, td { display: block; width: 100%; } thead, colgroup { display: none; }
  td { border: 0; padding: 3px 0; } tr { border-bottom: 1px solid var(--rule); padding: 10px 0; display: block; } }
@media print { body { padding: 0; font-size: 10pt; max-width: none; } tr { break-inside: avoid; } thead { display: table-header-group; }
  details { display: none; } }
"""  # noqa: E501

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claims</title>
<style>{{ css | safe }}</style>
</head>
<body>
<h1>Claims</h1>
<p class="lead">{{ how_to_read }}</p>
{% for paper, rows in papers.items() %}
<section>
<h2>{{ titles.get(paper, paper) }}</h2>
<p class="sub">{{ paper }} · scale {{ rows[0].scale }} · {{ rows | length }} claims</p>
<ul class="tally">
{% for verdict, n in counts(rows).items() %}
<li><span class="badge {{ verdict | replace(' ', '-') }}">{{ marks[verdict] }} {{ n }} {{ verdict }}</span></li>
{% endfor %}
</ul>
<table>
<colgroup><col class="verdict"><col class="claim"><col class="value"><col></colgroup>
<thead><tr><th>Verdict</th><th>Claim</th><th>Measured, and what was claimed</th><th>Why this verdict</th></tr></thead>
<tbody>
{% for row in rows %}
<tr>
<td><span class="badge {{ row.verdict | replace(' ', '-') }}">{{ marks[row.verdict] }} {{ row.verdict }}</span>
<div class="id">{{ row.claim }}</div></td>
<td>{{ row.statement }}
<small>{{ row.source }}</small>
<details><summary>Statistic and threshold</summary>
<p>{{ row.statistic }}</p><p>{{ row.why }}</p><p>{{ row.power }}</p><p>See {{ row.tables }}.</p></details></td>
<td><div class="measured">{{ row.measured | number }} <span>{{ interval(row.ci_low, row.ci_high) }}</span></div>
{{ row | sketch }}
<small>claimed {{ criterion(row) }}{% if row.published == row.published and row.published is not none %} · published {{ row.published | number }}{% endif %}{% if row.published_note %} ({{ row.published_note }}){% endif %}</small>
<small>{{ row.seeds | number }} seeds, n = {{ row.n | number(6) }}{% if interval(row.item_ci_low, row.item_ci_high) %} · items {{ interval(row.item_ci_low, row.item_ci_high) }}{% endif %}</small></td>
<td>{{ row.reason }}
{% if row.note %}<small>{{ row.note }}</small>{% endif %}
{% if power(row) %}<small>{{ power(row) }}</small>{% endif %}</td>
</tr>
{% endfor %}
</tbody>
</table>
</section>
{% endfor %}
<footer>Bar: interval over seeds. Dot: mean. Ring: published value. Dashed lines: threshold or margins.</footer>
</body>
</html>
"""  # noqa: E501
