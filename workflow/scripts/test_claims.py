"""Test one paper's claims on its run tables: one ledger row a claim, with verdict and reason.

The claims come from config/claims/<paper>.yaml as they stood before the run. With `claims.tested: false` the
numbers are shown and every verdict is "not tested".
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.claims.ledger import Claim, evaluate
from memorization.provenance.logs import logging_to
from memorization.provenance.record import provenance, read_table, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def item_metrics(claims: list[dict[str, Any]]) -> list[str]:
    """Metrics that claims look at item by item, by `metric` or by a list `reads`; the others stay on disk."""
    given = [claim["args"] for claim in claims]
    named = {str(args["metric"]) for args in given if "metric" in args}
    return sorted({"exact_match", *named, *(str(name) for args in given for name in args.get("reads", ()))})


def main(smk: Any) -> None:
    """Read the tables of all runs, evaluate the claims, write the rows."""
    given = smk.params.claims
    metrics = pd.concat([read_table(path) for path in smk.input.metrics], ignore_index=True)
    kept = [("metric", "in", item_metrics(given["claims"]))]
    frames = [pd.read_parquet(path, filters=kept, partitioning=None) for path in smk.input.per_item]
    items = pd.concat(frames, ignore_index=True)
    rows = evaluate(
        paper=smk.wildcards.paper,
        claims=[Claim.model_validate(claim) for claim in given["claims"]],
        metrics=metrics,
        items=items,
        runs=given["runs"],
        scale=given["scale"],
        **given["statistics"],
    )
    seeds = sorted(int(seed) for seed in metrics["seed"].unique())
    write_table(rows, smk.output.claims, provenance(seeds=seeds))
    print(rows[["claim", "verdict", "reason"]].to_string(index=False))


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
