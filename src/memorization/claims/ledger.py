"""The claims ledger: rows written down before a run, joined with what the run measured.

    claims file -> validate_claims -> evaluate (statistic, test) -> judge (Holm, verdict) -> write_ledger

Verdicts. `reproduced`: the interval over seeds lies wholly on the claimed side AND the Holm-adjusted P
value is below 1 - confidence. `contradicted`: the same for the contrary, whose P values are adjusted as a
family of their own. `inconclusive`: neither. `not tested`: too little data, or a scale that tests nothing.
The family of Holm's correction is a paper's tested claims. Intervals are NOT adjusted (each reads as one
usual 95 % interval), so a verdict needs P < .025 alone and P < .05 in the family. For an ordering, "every
seed has at least the threshold's concordance" and the exact P value take the interval's place.
"""

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memorization.claims import page
from memorization.claims.schema import Claim, ClaimsFile, nearest, read_claims
from memorization.claims.statistics import (
    MINIMUM_SEEDS,
    Evidence,
    MissingData,
    Result,
    assess_level,
    assess_order,
    holm,
)
from memorization.errors import UserError
from memorization.provenance.record import replacing

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not tested")
COLUMNS = [
    *(
        "paper",
        "claim",
        "statement",
        "source",
        "statistic",
        "published",
        "measured",
        "ci_low",
        "ci_high",
        "n",
    ),
    *("seeds", "threshold", "direction", "verdict", "reason", "scale"),
    # ours, after the columns that every reader of a ledger may count on
    *("margin", "transform", "published_note", "why", "power", "tables", "basis"),
    *(
        "item_ci_low",
        "item_ci_high",
        "p",
        "p_holm",
        "p_opposite",
        "p_opposite_holm",
        "minimum_detectable_effect",
    ),
    *("worst_seed", "note"),
]
# so that a column of nothing but gaps is still a column of numbers in the Parquet file
NUMBERS = [
    *("published", "measured", "ci_low", "ci_high", "n", "seeds", "threshold", "margin", "item_ci_low"),
    *("item_ci_high", "p", "p_opposite", "minimum_detectable_effect", "worst_seed"),
]


# ---- reading a claims file


def validate_claims(path: str | Path) -> ClaimsFile:
    """`read_claims`, and that every statistic exists and takes its arguments."""
    claims = read_claims(path)
    for claim in claims.claims:
        _check_call(claim, path)
    return claims


def resolve(claim: Claim) -> Callable[..., Evidence]:
    """Import the claim's statistic."""
    module, name = claim.statistic.split(":")
    return getattr(import_module(module), name)


def _check_call(claim: Claim, path: str | Path) -> None:
    module, name = claim.statistic.split(":")
    try:
        known = [key for key, value in vars(import_module(module)).items() if inspect.isfunction(value)]
    except ImportError:
        raise UserError(f"{path}: claim {claim.claim}: there is no module {module} for its statistic.") from None
    if name not in known:
        raise UserError(f"{path}: claim {claim.claim}: {module} has no statistic '{name}'; {nearest(name, known)}.")
    parameters = inspect.signature(resolve(claim)).parameters
    takes = [key for key in parameters if key not in ("metrics", "items")]
    for key in claim.args:
        if key not in takes:
            raise UserError(f"{path}: claim {claim.claim}: {name} takes no '{key}'; {nearest(key, takes)}.")
    for key in takes:
        if parameters[key].default is inspect.Parameter.empty and key not in claim.args:
            raise UserError(f"{path}: claim {claim.claim}: {name} needs '{key}'; add it under `args`.")


# ---- from run tables to rows


def frames_of(table: pd.DataFrame, runs: dict[str, list[str]], experiments: Sequence[str]) -> pd.DataFrame:
    """Rows of the runs of `experiments`, labelled with the experiment that asks; a shared run comes twice."""
    parts = [table[table["run"].isin(runs.get(name, []))].assign(experiment=name) for name in experiments]
    return pd.concat(parts, ignore_index=True)


def evaluate(
    paper: str,
    claims: Sequence[Claim],
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    runs: dict[str, list[str]],
    scale: str,
    confidence: float = 0.95,
    bootstrap: int = 1000,
    tested: bool = True,
) -> pd.DataFrame:
    """Ledger rows (`COLUMNS`) of one paper, in the order of its claims.

    metrics, items: run tables; runs: experiment -> names of its runs; tested False: numbers are computed and
    shown, but every verdict is "not tested".
    """
    rows = []
    for claim in claims:
        row: dict[str, Any] = {
            "paper": paper,
            "claim": claim.claim,
            "statement": claim.statement,
            "source": claim.source,
            "statistic": claim.label(),
            "published": claim.published,
            "threshold": claim.threshold,
            "direction": claim.test,
            "scale": scale,
            **{key: getattr(claim, key) for key in ("margin", "transform", "published_note", "why", "power")},
            "tables": ", ".join(claim.tables),
            "n": 0,
            "seeds": 0,
            "basis": "",
            "note": "",
            "reason": "",
        }
        try:
            missing = [name for name in claim.experiments if not runs.get(name)]
            if missing:
                hint = f" Make them with `{claim.run_with}`." if claim.run_with else ""
                raise MissingData(f"This scale has no runs of the experiment {' or '.join(missing)}.{hint}")
            tables = (frames_of(metrics, runs, claim.experiments), frames_of(items, runs, claim.experiments))
            evidence = resolve(claim)(*tables, **claim.args)
            row |= _measured(claim, evidence, confidence, bootstrap)
        except MissingData as error:
            row["reason"] = str(error)
        rows.append(row)
    return judge(pd.DataFrame(rows).reindex(columns=COLUMNS), confidence, tested)


def _measured(claim: Claim, evidence: Evidence, confidence: float, bootstrap: int) -> dict[str, Any]:
    if claim.test == "ordering":
        result: Result = assess_order(evidence, confidence)
    else:
        log = claim.transform == "log"
        result = assess_level(evidence, claim.test, claim.threshold, claim.margin, log, confidence, bootstrap)
    return {**vars(result), "n": evidence.n, "note": evidence.note}


# ---- verdicts


def judge(rows: pd.DataFrame, confidence: float = 0.95, tested: bool = True) -> pd.DataFrame:
    """Add Holm-adjusted P values, verdicts and reasons to the rows of ONE paper."""
    rows = rows.astype(dict.fromkeys(NUMBERS, float))
    rows = rows.assign(p_holm=holm(rows["p"].tolist()), p_opposite_holm=holm(rows["p_opposite"].tolist()))
    verdicts = [_verdict(row, 1 - confidence, tested) for row in rows.to_dict("records")]
    return rows.assign(verdict=[v for v, _ in verdicts], reason=[reason for _, reason in verdicts])


def _verdict(row: dict[Any, Any], alpha: float, tested: bool) -> tuple[str, str]:
    """Verdict and its reason, a full sentence."""
    if not tested:
        return "not tested", f"The {row['scale']} scale only shows that the workflow runs; it tests no claim."
    if np.isnan(row["measured"]):
        return "not tested", row["reason"] or "Nothing was measured."
    if row["seeds"] < MINIMUM_SEEDS:
        some = f"{row['seeds']:.0f} seed{'' if row['seeds'] == 1 else 's'}"
        return "not tested", f"Only {some} can be used; a spread over seeds needs {MINIMUM_SEEDS}."
    if row["direction"] == "ordering":
        return _verdict_of_order(row, alpha)
    for_it, against_it = _sides(row)
    where = f"The interval over {row['seeds']:.0f} seeds, {row['ci_low']:.3g} to {row['ci_high']:.3g},"
    if row["basis"] != "t over seeds":
        where = f"All {row['seeds']:.0f} seeds gave the same value; the interval by {row['basis']}, "
        where += f"{row['ci_low']:.3g} to {row['ci_high']:.3g},"
    if np.isnan(row["ci_low"]):
        return "inconclusive", (
            f"All {row['seeds']:.0f} seeds gave the same value and no item says how sure it is (sign test: "
            f"P = {row['p']:.2g})."
        )
    claimed, contrary = _words(row)
    for inside, name, words, p in (
        (for_it, "reproduced", claimed, row["p_holm"]),
        (against_it, "contradicted", contrary, row["p_opposite_holm"]),
    ):
        if inside and p < alpha:
            return name, f"{where} lies {words}; Holm-adjusted P = {p:.2g}."
        if inside:
            weak = f"but the Holm-adjusted P of {p:.2g} is not below {alpha:.2g}"
            return "inconclusive", f"{where} lies {words}, {weak}."
    return "inconclusive", f"{where} covers both answers."


def _sides(row: dict[Any, Any]) -> tuple[bool, bool]:
    """Whether the interval lies wholly on the claimed side, and wholly on the other."""
    low, high, threshold = row["ci_low"], row["ci_high"], row["threshold"]
    if row["direction"] == "equivalent":
        bottom, top = page.edges(row)
        return low > bottom and high < top, low > top or high < bottom
    above, below = low > threshold, high < threshold
    return (above, below) if row["direction"] == "greater" else (below, above)


def _words(row: dict[Any, Any]) -> tuple[str, str]:
    """The claimed side and the contrary, for the reason."""
    if row["direction"] == "equivalent":
        bottom, top = page.edges(row)
        return (
            f"within the margins {bottom:.3g} and {top:.3g}",
            f"outside the margins {bottom:.3g} and {top:.3g}",
        )
    words = (f"above {row['threshold']:g}", f"below {row['threshold']:g}")
    return words if row["direction"] == "greater" else words[::-1]


def _verdict_of_order(row: dict[Any, Any], alpha: float) -> tuple[str, str]:
    seeds, worst, needed = f"{row['seeds']:.0f}", row["worst_seed"], row["threshold"]
    p, p_opposite = (f"exact Holm-adjusted P = {row[key]:.2g}" for key in ("p_holm", "p_opposite_holm"))
    if worst < needed - 1e-9:
        if row["p_opposite_holm"] < alpha:
            how = f"concordance {row['measured']:.2g}, chance is 0.5"
            return "contradicted", f"The opposite order prevails ({how}, {seeds} seeds); {p_opposite}."
        need = f"The claim needs a concordance of {needed:g} in every seed"
        return "inconclusive", f"{need}, and the least ordered of {seeds} has {worst:.2g} ({p} over all)."
    how = "the claimed order" if needed == 1 else f"a concordance of at least {needed:g}"
    if row["p_holm"] < alpha:
        return "reproduced", f"Each of {seeds} seeds has {how}; {p}."
    return "inconclusive", f"Each of {seeds} seeds has {how}, but {p} is not below {alpha:.2g}."


# ---- writing


def write_ledger(rows: pd.DataFrame, csv: str | Path, markdown: str | Path, html: str | Path) -> None:
    """Write the three forms of the ledger of one or more papers."""
    rows = rows.reindex(columns=COLUMNS)
    rows = rows.astype({"n": "Int64", "seeds": "Int64"})
    forms = {csv: rows.to_csv(index=False), markdown: page.markdown(rows), html: page.html(rows)}
    for path, text in forms.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
