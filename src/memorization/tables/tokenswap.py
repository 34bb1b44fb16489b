"""The numbers behind each figure of paper `tokenswap`: one function per figure, named as the figure without
its prefix.

Every function takes `(metrics, items, params)` and returns a tidy table with one row per plotted mark and
seed. Rows of the paper have `source` "paper", seed -1 and their numbers in our units; nothing but the figure
puts them beside ours. What an arm is called follows from its columns, see `name_arms`.
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from memorization.tables.common import pick, reads, some

Params = dict[str, Any]
KEPT = [
    "experiment", "run", "model", "size", "parameters", "method", "aux", "aux_parameters", "words",
    "words_size", "seed", "data", "subset", "metric", "value", "n", "arm", "detail", "source",
]  # fmt: skip
EXTRACTION = ["matching_characters", "exact_match", "rouge_l", "levenshtein"]
INNOCENT = ("background", "other", "public")  # recipes of an auxiliary that has not seen the passages


# ------------------------------------------------------------------------------------------------------------
# Arms


def name_arms(metrics: pd.DataFrame) -> pd.DataFrame:
    """Add `arm`, the name of a way of decoding, and an empty `detail` to rows of arms.

    A second partner of CP-Fuse, smaller than the one of the same experiment, is `cp_fuse_tiny`; an auxiliary
    that is the main model `tokenswap_self`, one trained on the passages `tokenswap_seen`; G of other words
    `tokenswap_content_matched` and `tokenswap_content_110`.
    """
    if metrics.empty:
        return metrics.assign(arm="", detail="", source="ours")
    keys = ["experiment", "model", "recipe", "method", "aux", "aux_parameters", "words", "decoding"]
    kinds = metrics[keys].drop_duplicates(ignore_index=True)
    pairs = pick(kinds, method="cp_fuse")
    largest = pairs.groupby("experiment")["aux_parameters"].max().to_dict()
    kinds["arm"] = [_arm(kind, largest) for kind in kinds.to_dict("records")]
    return metrics.merge(kinds, on=keys, how="left").assign(detail="", source="ours")


def _arm(kind: dict[Any, Any], largest: dict[Any, int]) -> str:
    method, recipe, aux, words = (kind[key] for key in ("method", "recipe", "aux", "words"))
    goldfish = recipe if recipe.startswith("goldfish") else ""
    if method == "standard":
        return goldfish or ("standard_sampled" if kind["decoding"] == "sample" else "standard")
    if method == "cp_fuse":
        if recipe.startswith(("half", "mix")):
            return f"cp_fuse_{recipe.rstrip('0123456789')}"
        return "cp_fuse" if kind["aux_parameters"] == largest[kind["experiment"]] else "cp_fuse_tiny"
    if method != "tokenswap":
        return str(method)
    if aux == kind["model"]:
        return "tokenswap_self"
    if not aux.startswith(INNOCENT):
        return "tokenswap_seen"
    if words.startswith("content"):
        return f"tokenswap_{words.replace('-', '_')}"
    if goldfish:
        return f"tokenswap_{goldfish}"
    return "tokenswap_sampled" if kind["decoding"] == "sample" else "tokenswap"


def in_domain(table: pd.DataFrame, domain: str | None) -> pd.DataFrame:
    """Rows of a domain, with the value of the whole for metrics that nothing was measured of by domain.

    Held-out text has no domains: its cross-entropy stands beside both. Without any domain all rows are whole.
    """
    names = table["subset"].where(table["subset"] != "all")
    if domain is None or not (names == domain).any():
        return table[names.isna()]
    whole = names.groupby(table["metric"]).transform("count") == 0
    return table[(names == domain) | whole].assign(subset=domain)


def size_of(model: pd.Series) -> pd.Series:
    """What stands after the recipe in the name of a model: background-S -> S."""
    return model.str.partition("-")[2]


def _ours(metrics: pd.DataFrame, figure: str, wanted: list[str], data: str | None = None) -> pd.DataFrame:
    """Rows of the figure's arms in the columns that a table keeps."""
    rows = pick(metrics, metric=wanted, data=data) if len(metrics) else metrics
    rows = some(rows, figure, " or ".join(wanted))
    return name_arms(rows)[KEPT]


def _with_paper(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Append the paper's numbers. Their `model` is "<arm>" or "<arm>; <detail>", percent become shares."""
    theirs = params.get("published")
    if theirs is None or theirs.empty:
        return table
    name = theirs["model"].str.partition("; ")
    rows = pd.DataFrame(
        {
            "arm": name[0],
            "detail": name[2],
            "data": theirs["data"].fillna("").astype(str),
            "subset": theirs["subset"].fillna("all"),
            "metric": theirs["metric"],
            "value": theirs["value"] / np.where(theirs["unit"] == "percent", 100, 1),
            "n": theirs["items"],
        }
    )
    return pd.concat([table, rows.assign(source="paper", seed=-1)], ignore_index=True)


def _aux_as_detail(table: pd.DataFrame) -> pd.DataFrame:
    """Tell arms of TokenSwap apart by the size of their auxiliary."""
    return table.assign(detail=size_of(table["aux"]).where(table["method"] == "tokenswap", ""))


# ------------------------------------------------------------------------------------------------------------
# Extraction tables


@reads(*EXTRACTION)
def tab2(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Extraction of passages that the main model was fine-tuned on, by method and domain (Table 2)."""
    return _with_paper(_ours(metrics, "tokenswap_tab2", EXTRACTION), params)


LOSSES = ["cross_entropy", "cross_entropy_words", "cross_entropy_others"]


@reads(*LOSSES)
def tab6(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Held-out cross-entropy of the arms of Table 2, of all tokens, of those in G and of the others (Table 6)."""
    return _with_paper(pick(_ours(metrics, "tokenswap_tab6", LOSSES), subset="all"), params)


WILD = [*EXTRACTION, "rouge_above_0.8", "cross_entropy", "judge_loss"]


@reads(*WILD)
def tab3(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Extraction and quality for passages repeated in the training text, by method and domain (Table 3)."""
    table = _aux_as_detail(_ours(metrics, "tokenswap_tab3", WILD))
    names = [name for name in table["subset"].unique() if name != "all"]
    return _with_paper(pd.concat([in_domain(table, name) for name in names or [None]]), params)


@reads(*EXTRACTION)
def tab5(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Extraction with an auxiliary of another vocabulary (Table 5)."""
    return _with_paper(_ours(metrics, "tokenswap_tab5", EXTRACTION), params)


@reads(*EXTRACTION, "cross_entropy")
def tab4(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Training with the Goldfish loss against TokenSwap, and both together (Table 4)."""
    return _with_paper(_ours(metrics, "tokenswap_tab4", [*EXTRACTION, "cross_entropy"]), params)


@reads(*EXTRACTION, "cross_entropy")
def tab12(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Standard decoding and TokenSwap for every size of the main model; `detail` is the size (Table 12)."""
    table = _ours(metrics, "tokenswap_tab12", [*EXTRACTION, "cross_entropy"])
    return _with_paper(table.assign(detail=table["size"]), params)


@reads("exact_match", "cross_entropy")
def fig3(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EMR and held-out cross-entropy for every size of the main model; `detail` is the size (Fig. 3)."""
    table = _ours(metrics, "tokenswap_fig3", ["exact_match", "cross_entropy"])
    return _with_paper(table.assign(detail=table["size"]), params)


SETS = [*EXTRACTION, "cross_entropy", "frequency", "mass"]


@reads(*SETS)
def tab9(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Extraction and cross-entropy by the number of swapped words; `detail` is the name of G (Table 9).

    `frequency` is the share of held-out tokens in G, the paper's gamma, and `mass` the main model's mean
    probability of G; `words_usable` counts the words of G that both models write as one token.
    """
    table = _ours(metrics, "tokenswap_tab9", SETS)
    usable = pick(table, metric="frequency")
    usable = usable.assign(metric="words_usable", value=usable["words_size"].astype(float))
    table = pd.concat([table, usable], ignore_index=True)
    return _with_paper(table.assign(detail=table["words"]), params)


@reads(*WILD)
def tab10(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Extraction and quality by the size of the auxiliary in one domain, `params["domain"]` (Table 10)."""
    table = _aux_as_detail(_ours(metrics, "tokenswap_tab10", WILD))
    return _with_paper(in_domain(table, params.get("domain")), params)


@reads(*WILD)
def tab11(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Same as Table 10 for the other domain (Table 11)."""
    table = _aux_as_detail(_ours(metrics, "tokenswap_tab11", WILD))
    return _with_paper(in_domain(table, params.get("domain")), params)


@reads("fractional_exact")
def tab8(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Share of positions with the true token, by method and domain; other vocabulary: subset "other" (Table 8)."""
    table = _aux_as_detail(_ours(metrics, "tokenswap_tab8", ["fractional_exact"]))
    other = table["experiment"] == "vocabulary"
    table = table[np.where(other, table["subset"] == "all", table["subset"] != "all")]
    return _with_paper(table.assign(subset=table["subset"].where(table["experiment"] != "vocabulary", "other")), params)


@reads(*EXTRACTION)
def tab13(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Speculative decoding with the auxiliary as draft model, which leaves the distribution alone (Table 13)."""
    return _with_paper(_ours(metrics, "tokenswap_tab13", EXTRACTION), params)


# ------------------------------------------------------------------------------------------------------------
# Quality and cost


@reads("accuracy")
def tab7(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Accuracy on multiple-choice questions whose answers are content words, by group (Table 7)."""
    return _with_paper(_ours(metrics, "tokenswap_tab7", ["accuracy"], "cloze_content"), params)


@reads("accuracy")
def x_hard(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Accuracy on multiple-choice questions whose answers are function words, by grammatical class."""
    return _ours(metrics, "tokenswap_x_hard", ["accuracy"], "cloze_function")


def relative_to(table: pd.DataFrame, arm: str, metric: str, name: str, ratio: bool = False) -> pd.DataFrame:
    """Rows of `metric` minus (or divided by) those of an arm of the same experiment, seed and subset."""
    rows = pick(table, metric=metric)
    keys = ["experiment", "seed", "subset"]
    base = pick(rows, arm=arm).groupby(keys)["value"].mean().rename("base").reset_index()
    rows = rows.merge(base, on=keys)
    value = rows["value"] / rows["base"] if ratio else rows["value"] - rows["base"]
    return rows.assign(metric=name, value=value).drop(columns="base")


@reads("seconds_per_token")
def x_cost(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Seconds a token by method and batch size, and divided by those of standard decoding of the same seed.

    The arm `limit` is one forward pass of the main and one of the auxiliary: nothing that runs both can take
    less.
    """
    table = _ours(metrics, "tokenswap_x_cost", ["seconds_per_token"])
    relative = relative_to(table, "standard", "seconds_per_token", "seconds_ratio", ratio=True)
    return pd.concat([table, relative], ignore_index=True)


@reads("seconds_per_token")
def tab1(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """What each method needs (Table 1, facts of the paper), and what those that we time cost here.

    Facts are 0 or 1; `extra_memory` and `parameters_ratio` are parameters of the second model relative to
    the main one.
    """
    facts = _with_paper(pd.DataFrame(columns=KEPT), params)
    table = pick(metrics, metric="seconds_per_token") if len(metrics) else metrics
    if table.empty:
        return some(facts, "tokenswap_tab1", "published facts or times")
    table = name_arms(table)[KEPT]
    ratios = relative_to(table, "standard", "seconds_per_token", "seconds_ratio", ratio=True)
    second = ratios[ratios["aux_parameters"] > 0].drop_duplicates(["arm", "seed"])
    second = second.assign(metric="parameters_ratio", value=second["aux_parameters"] / second["parameters"])
    return pd.concat([frame for frame in (ratios, second, facts) if len(frame)], ignore_index=True)


CONTROLS = ["matching_tokens", "exact_match", "rouge_l", "cross_entropy"]


@reads(*CONTROLS)
def x_controls(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Extraction with other auxiliaries and other word sets, and what they add to held-out cross-entropy.

    `cross_entropy_added` is the difference to standard decoding of the same seed.
    """
    table = _ours(metrics, "tokenswap_x_controls", CONTROLS)
    table = pick(table, subset="all")
    added = relative_to(table, "standard", "cross_entropy", "cross_entropy_added")
    return pd.concat([table, added], ignore_index=True)


# ------------------------------------------------------------------------------------------------------------
# Single passages


@reads("rouge_l", items=("rouge_l",))
def fig5(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Share of passages in equal bins of ROUGE-L for three arms (Fig. 5); a bin is [low, high), the last closed."""
    arms = _ours(metrics, "tokenswap_fig5", ["rouge_l"])
    arms = pick(arms, arm=["standard", params.get("goldfish", "goldfish3"), "tokenswap"])
    arms = arms.drop_duplicates(["experiment", "run"]).drop(columns=["metric", "subset", "value", "n"])
    scores = pick(items, metric="rouge_l", split="train")[["experiment", "run", "value"]]
    edges = np.linspace(0, 1, params.get("bins", 20) + 1)
    frames = []
    for arm in some(arms, "tokenswap_fig5", "arms").to_dict("records"):
        values = pick(scores, experiment=arm["experiment"], run=arm["run"])["value"].to_numpy(float)
        if len(values):
            # float32 means of exact fractions: an edge must not fall below its own bin
            counts, _ = np.histogram(np.clip(values + 1e-6, 0, 1), edges)
            bins = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "value": counts / len(values)})
            about = {str(key): value for key, value in arm.items()}
            frames.append(bins.assign(**about, metric="share_of_passages", subset="all", n=len(values)))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return some(table, "tokenswap_fig5", "ROUGE-L of passages")


def copied(written: str, suffix: str) -> int:
    """Characters of the suffix written before the first deviation."""
    same = [a == b for a, b in zip(written, suffix, strict=False)]
    return same.index(False) if False in same else len(same)


@reads("exact_match", items=("prefix", "suffix", "written"))
def fig4(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Texts of a few passages: prefix, true suffix and what standard decoding and TokenSwap wrote (Fig. 4).

    The first passages of the first seed that stored them, taken from the domains in turn; `value` is the
    number of characters copied before the first deviation (`written`) or the length. `text` of `written` is
    a JSON list of [piece, swapped].
    """
    figure = "tokenswap_fig4"
    arms = pick(_ours(metrics, figure, ["exact_match"]), arm=["standard", "tokenswap"])
    arms = arms.drop_duplicates(["experiment", "run"]).sort_values(["seed", "aux_parameters"])
    texts = items[items["text"].notna()] if "text" in items else items.iloc[:0]
    texts = some(texts.drop(columns=["value", "seed"]), figure, "stored texts of passages")
    texts = texts.merge(arms[["experiment", "run", "seed", "model", "aux", "arm"]], on=["experiment", "run"])
    texts = texts[texts["seed"] == texts["seed"].min()]
    # of several auxiliaries the smallest: arms are sorted by its size
    first = arms[arms["run"].isin(texts["run"])].drop_duplicates(["arm"])["run"]
    texts = texts[texts["run"].isin(first)].drop_duplicates(["arm", "item", "subset", "metric"])
    keys = ["subset", "item"]
    written = pick(texts, metric="written").pivot(index=keys, columns="arm", values="text")
    passages = pick(texts, metric=["prefix", "suffix"], arm="standard")
    whole = written.join(passages.pivot(index=keys, columns="metric", values="text")).dropna()
    whole = some(whole.reset_index(), figure, "passages written by both methods")
    whole["turn"] = whole.groupby("subset").cumcount()
    whole["later"] = whole["subset"] != "prose"
    whole = whole.sort_values(["turn", "later", "subset"], kind="stable")
    rows = []
    for passage in whole.head(params.get("passages", 4)).to_dict("records"):
        about = {key: passage[key] for key in keys}
        for name in ("prefix", "suffix"):
            rows.append({**about, "arm": "", "metric": name, "value": len(passage[name]), "text": passage[name]})
        for arm in ("standard", "tokenswap"):
            text = "".join(piece for piece, _ in json.loads(passage[arm]))
            same = copied(text, passage["suffix"])
            rows.append({**about, "arm": arm, "metric": "written", "value": same, "text": passage[arm]})
    return pd.DataFrame(rows).assign(seed=int(texts["seed"].iloc[0]), source="ours")
