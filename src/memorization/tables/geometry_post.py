"""The numbers behind the post-training figures of paper `geometry`: `fig5` and `fig14`.

A chain is supervised fine-tuning (SFT) of the base, then DPO of that model, then GRPO of that one. Fine-tuned models
that are compared with one another start from several pre-training checkpoints of the same base and differ in the format
of the data: `short` or `long`. Losses are those of held-out items of both formats: the one that a model was tuned on is
in distribution, the other out of it.
"""

from typing import Any

import numpy as np
import pandas as pd

from memorization.methods.pass_at_k import win_rate
from memorization.tables.common import pick, reads, some
from memorization.tables.geometry_rows import default_rows

Params = dict[str, Any]
CHAIN = {"sft": "base", "dpo": "sft", "grpo": "dpo"}  # stage -> what it starts from
PROBES = {"text": {"choice": "default"}, "task": {"choice": "data", "subset": "short", "token": "answer"}}
RUN = ["model", "seed", "stage", "start", "format", "base_step", "base_tokens"]
MARK = [
    "panel", "model", "width", "seed", "stage", "format", "subset", "step", "at", "base_tokens", "k", "value",
    "value_high", "point", "tag",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------
# Along SFT, DPO and GRPO


def chain_of(metrics: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Rows of experiment `chain` whose stages follow one another; `at` counts training steps from the start of SFT.

    The last step of a stage and step 0 of the next one are the same model, and have the same `at`. Runs of the
    experiment that start elsewhere (GRPO of the base, for instance) are left out.
    """
    rows = pick(metrics, experiment="chain") if len(metrics) else metrics
    rows = some(rows, figure, "experiment chain")
    rows = rows[rows["start"].eq(rows["stage"].map(CHAIN))]
    # a public checkpoint is a run of its own, measured at its step 0; its tokens are then counted in steps
    apart = rows["tokens_per_step"].eq(1)
    rows = rows.assign(step=rows["step"].where(~apart, rows["base_tokens"]))
    begins, total = {}, 0
    for stage in CHAIN:
        begins[stage] = total
        steps = rows.loc[rows["stage"] == stage, "step"]
        total += int(steps.max()) if len(steps) else 0
    return rows.assign(at=rows["stage"].map(begins).astype(int) + rows["step"])


def along(chain: pd.DataFrame) -> pd.DataFrame:
    """RankMe along the chain in units of its first value, for the text probe and the task probe.

    Panels are `rank_me_text` and `rank_me_task`. The first value is that before SFT, or where only the end of SFT is
    public that.
    """
    frames = []
    for probe, chosen in PROBES.items():
        rows = pick(chain, metric="rank_me", **chosen)
        begin = rows["at"].eq(rows.groupby(["model", "seed"])["at"].transform("min"))
        first = rows[begin].groupby(["model", "seed"])["value"].mean().rename("before")
        both = rows.merge(first.reset_index(), on=["model", "seed"])
        frames.append(both.assign(panel=f"rank_me_{probe}", value=both["value"] / both["before"]))
    return pd.concat(frames, ignore_index=True)


def pass_curves(chain: pd.DataFrame) -> pd.DataFrame:
    """pass@k of the end of each stage, and of every evaluation within GRPO (panel `pass`), k in column `k`.

    Panel `pass_most` holds the largest k during GRPO, `rank_me_text_grpo` and `rank_me_task_grpo` RankMe, each in its
    own unit, so that the two can be read side by side.
    """
    rows = pick(chain, metric="pass_at_k", subset="short")
    last = rows.groupby("run")["step"].transform("max") if len(rows) else rows["step"]
    curves = rows[rows["stage"].eq("grpo") | rows["step"].eq(last)].assign(panel="pass")
    during = pick(curves, stage="grpo")
    most = during[during["k"].eq(during["k"].max())].assign(panel="pass_most")
    frames = [curves, most]
    for probe, chosen in PROBES.items():
        frames.append(pick(chain, metric="rank_me", stage="grpo", **chosen).assign(panel=f"rank_me_{probe}_grpo"))
    return pd.concat(frames, ignore_index=True)


# ------------------------------------------------------------------------------------------------------------
# From several pre-training checkpoints


def tuned(metrics: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Rows of experiment `sft` at the last step of each run."""
    rows = pick(metrics, experiment="sft", stage="sft") if len(metrics) else metrics
    rows = some(rows, figure, "experiment sft")
    return rows[rows["step"].eq(rows.groupby("run")["step"].transform("max"))]


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Loss of held-out replies after SFT, nats a reply: panels `loss_in` and `loss_out` of the distribution."""
    rows = pick(rows, metric="reply_loss", subset=["short", "long"], split="validation")
    return rows.assign(panel=np.where(rows["subset"].eq(rows["format"]), "loss_in", "loss_out"))


def shares_won(mine: pd.DataFrame, theirs: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Share of items on which `mine` has the higher score, ties counting one half, a row a model, seed and base.

    Parameters
    ----------
    mine, theirs
        One row an item with columns `item`, `value` (score) and the columns RUN.
    on
        Columns besides `item` that pair a row of `mine` with one of `theirs`. Items of only one do not count.
    """
    both = mine.merge(theirs[[*on, "item", "value"]], on=[*on, "item"], suffixes=("", "_theirs"))
    found = [
        {**dict(zip(RUN, which, strict=True)), "value": win_rate(part["value"], part["value_theirs"])}
        for which, part in both.groupby(RUN, sort=False)
    ]
    return pd.DataFrame(found, columns=[*RUN, "value"])


def judged(items: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Judge's scores of the replies of fine-tuned models with the columns RUN; rows without a score are left out."""
    about = rows[["run", *RUN]].drop_duplicates("run")
    if items.empty:
        return pd.DataFrame(columns=["run", "item", "value", *RUN])
    scores = pick(items, metric="judge_score", subset="long")[["run", "item", "value"]]
    return scores.dropna().drop_duplicates(["run", "item"]).merge(about, on="run")


def win_rates(scores: pd.DataFrame) -> pd.DataFrame:
    """Win rate of the model tuned on `short` over the one tuned on `long` from the same checkpoint (panel `won`)."""
    short, long = pick(scores, format="short"), pick(scores, format="long")
    return shares_won(short, long, ["model", "seed", "base_step", "base_tokens"]).assign(panel="won")


def win_rates_over_last(scores: pd.DataFrame) -> pd.DataFrame:
    """Win rate of the short-tuned model of each checkpoint over that of the last checkpoint (panel `won_last`).

    The last checkpoint against itself ties on every item: one half by definition.
    """
    short = pick(scores, format="short")
    last = short[short["base_tokens"].eq(short.groupby(["model", "seed"])["base_tokens"].transform("max"))]
    return shares_won(short, last, ["model", "seed"]).assign(panel="won_last")


def bases(metrics: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """RankMe of the base at the checkpoints that were fine-tuned, from pre-training (panel `rank_me_base`)."""
    base = default_rows(metrics, variant="base")
    base = base.assign(base_tokens=base["tokens"])
    started = rows[["model", "base_tokens"]].drop_duplicates()
    return base.merge(started, on=["model", "base_tokens"]).assign(panel="rank_me_base")


# ------------------------------------------------------------------------------------------------------------
# Figures


def _marks(frames: list[pd.DataFrame], metrics: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    width = metrics.dropna(subset=["width"]).drop_duplicates("model").set_index("model")["width"]
    return table.assign(width=table["model"].map(width)).reindex(columns=MARK)


def theirs_of(params: Params) -> pd.DataFrame:
    """The paper's values by panel, empty without any: RankMe and losses in its own units, shares as fractions.

    `point` is "start", "minimum" or "end" of a curve. In panels along the chain `at` counts training steps, in those of
    reinforcement learning `step` does; in those of the base `base_tokens` are tokens of pre-training.
    """
    theirs = params.get("published")
    if theirs is None or theirs.empty:
        return pd.DataFrame(columns=MARK)
    rows = theirs.reindex(
        columns=["model", "stage", "subset", "metric", "step", "tokens", "k", "point", "tag", "unit", "value_high"]
    )
    rows = rows.assign(format="", value=theirs["value"] / np.where(rows["unit"].eq("percent"), 100, 1))
    learning = theirs["how_read"].str.contains("5C")  # its steps begin with reinforcement learning
    panels = rows["metric"].map({"rank_me": "rank_me_text", "win_rate": "won", "pass_at_k": "pass"})
    panels = panels.mask(rows["metric"].eq("reply_loss"), rows["subset"].map({"short": "loss_in", "long": "loss_out"}))
    panels = panels.mask(rows["metric"].eq("rank_me") & rows["stage"].eq("pretraining"), "rank_me_base")
    panels = panels.mask(rows["metric"].eq("rank_me") & learning, "rank_me_text_grpo")
    panels = panels.mask(rows["metric"].eq("pass_at_k") & rows["unit"].eq("percent"), "pass_most")
    rows = rows.assign(panel=panels, at=rows["step"].where(~learning), base_tokens=rows["tokens"])
    return rows.reindex(columns=MARK).assign(seed=-1)


def _beside(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Append the paper's values (source "paper") to ours."""
    table, theirs = table.assign(source="ours"), theirs_of(params).assign(source="paper")
    return pd.concat([table, theirs], ignore_index=True) if len(theirs) else table


@reads("rank_me", "reply_loss", "pass_at_k", items=["judge_score"])
def fig5(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe along SFT, DPO and GRPO; losses and win rate against the base's tokens; pass@k (Fig. 5).

    Losses are those of models tuned on `short`. RankMe of panels `rank_me_text` and `rank_me_task` is in units of its
    value before SFT; the paper's stand beside it in their own units.
    """
    chain = chain_of(metrics, "geometry_fig5")
    rows = tuned(metrics, "geometry_fig5")
    after = losses(pick(rows, format="short"))
    frames = [along(chain), after, win_rates(judged(items, rows)), bases(metrics, rows), pass_curves(chain)]
    return _beside(_marks(frames, metrics), params)


@reads("reply_loss", items=["judge_score"])
def fig14(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Losses in and out of distribution, win rates of short over long and over the last model (Fig. 14)."""
    rows = tuned(metrics, "geometry_fig14")
    scores = judged(items, rows)
    return _beside(_marks([losses(rows), win_rates(scores), win_rates_over_last(scores)], metrics), params)
