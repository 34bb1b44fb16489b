"""Decoding arms: each measures what its formula says, on the same passages, and none is measured twice."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from memorization.errors import UserError
from memorization.evaluate import arms as measuring
from memorization.evaluate import decoding
from memorization.evaluate.bench import Bench, matched, pieces
from memorization.models.build import load
from tiny_arms import DOMAINS, EVERYTHING, PREFIX, SUFFIX, arm, every_arm, refer, tiny_arms

KEY = ["method", "aux", "words", "decoding"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    tiny_arms(folder)
    return folder


@pytest.fixture(scope="module")
def spec(root, tmp_path_factory):
    return tiny_arms(tmp_path_factory.mktemp("other"))  # the same values; data are those of `root`


@pytest.fixture(scope="module")
def measured(root, spec, tmp_path_factory):
    return measuring.measure_all(spec, root, tmp_path_factory.mktemp("work"), "c")


def value(metrics, metric, subset="all", **where):
    rows = metrics[(metrics["metric"] == metric) & (metrics["subset"] == subset)]
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    assert len(rows) == 1, (metric, where, len(rows))
    return float(rows["value"].iloc[0])


def log_probs(root, name, ids):
    """The model's own log-probabilities (T, V) in float64."""
    with torch.no_grad():
        return load(root / "models" / refer(name).run).eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def greedy(root, name, ids, tokens):
    """Written by hand, the whole context at every step."""
    ids = list(ids)
    for _ in range(tokens):
        ids.append(int(log_probs(root, name, ids)[-1].argmax()))
    return ids[-tokens:]


def test_standard_decoding_is_the_models_own(root, spec):
    bench = Bench(spec, root)
    prompts = bench.passages(refer("wild-L")).prompts[:3]
    written, swapped = decoding.write(bench, arm("wild-L"), prompts, SUFFIX)
    assert not swapped.any()
    for row, prompt in zip(written, prompts, strict=True):
        assert row.tolist() == greedy(root, "wild-L", prompt.tolist(), SUFFIX)


def test_held_out_cross_entropy_by_hand(root, spec, measured):
    bench = Bench(spec, root)
    texts = bench.stored_ids(refer("wild-L"), "background", "validation")[: spec.held_out]
    losses = [-log_probs(root, "wild-L", ids)[range(len(ids) - 1), ids[1:]] for ids in texts]
    found = value(measured[0], "cross_entropy", method="standard", decoding="greedy")
    assert found == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


def test_cross_entropy_of_words_and_others_add_up(measured):
    for _, rows in measured[0][measured[0]["data"] == "held_out"].groupby("run"):
        by = rows.set_index("metric")
        total = by.loc["cross_entropy"]
        parts = by.loc[["cross_entropy_words", "cross_entropy_others"]]
        assert parts["n"].sum() == total["n"]
        assert (parts["value"] * parts["n"]).sum() / total["n"] == pytest.approx(total["value"], rel=1e-9)


def test_an_auxiliary_that_is_the_main_model_changes_nothing(root, spec, tmp_path):
    chosen = [arm("wild-L"), arm("wild-L", "tokenswap", "wild-L", "english-110")]
    changed = spec.model_copy(update={"arms": chosen, "experiments": ["x", "x"]})
    metrics, items = measuring.measure_all(changed, root, tmp_path, "c")
    columns = ["data", "subset", "metric"]
    kept = metrics[~metrics["metric"].isin(["seconds_per_token", "frequency", "mass"])]
    plain, swap = (kept[kept["method"] == name].set_index(columns)["value"] for name in ("standard", "tokenswap"))
    pd.testing.assert_series_equal(plain, swap, rtol=1e-6)
    written = [
        frame.loc[frame["metric"] == "written", "text"].map(json.loads).tolist() for _, frame in items.groupby("run")
    ]
    assert written[0] == written[1] and not any(swapped for text in written[1] for _, swapped in text)


def test_the_swap_changes_words_and_marks_them(root, spec):
    bench, one = Bench(spec, root), arm("wild-L", "tokenswap", "background-S", "english-110")
    prompts = bench.passages(refer("wild-L")).prompts
    written, swapped = decoding.write(bench, one, prompts, SUFFIX)
    members = bench.words(one).coverage(bench.tokenizer(one.model)).main_ids
    assert swapped.any()
    for prompt, row, marks in zip(prompts, written, swapped, strict=True):
        for step in range(SUFFIX):
            own = int(log_probs(root, "wild-L", [*prompt.tolist(), *row[:step].tolist()])[-1].argmax())
            assert marks[step] == (own != row[step])
            assert not marks[step] or own in members or row[step] in members


def test_memfree_writes_no_n_gram_of_the_passages(root, spec):
    bench = Bench(spec, root)
    passages = bench.passages(refer("wild-L"))
    known = {tuple(row[i : i + 4]) for row in passages.ids.tolist() for i in range(len(row) - 3)}
    written, _ = decoding.write(bench, arm("wild-L", "memfree"), passages.prompts, SUFFIX)
    assert not any(tuple(row[i : i + 4]) in known for row in written.tolist() for i in range(SUFFIX - 3))


def test_samples_repeat_by_seed_and_differ_from_each_other(root, spec):
    bench = Bench(spec, root)
    prompts = bench.passages(refer("wild-L")).prompts
    for one in (arm("wild-L", decoding="sample"), arm("wild-L", "speculative", "background-S", decoding="sample")):
        first, again, other = (decoding.write(bench, one, prompts, SUFFIX, sample=i)[0] for i in (0, 0, 1))
        assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_cloze_accuracy_by_hand(root, spec, measured):
    bench, right = Bench(spec, root), []
    asked = [question for kind, question in bench.questions() if kind == "function"]
    for question in asked:
        last = log_probs(root, "wild-L", list(question.context_ids))[-1]
        right.append(max(question.option_ids, key=lambda i: float(last[i])) == question.option_ids[question.answer])
    found = value(measured[0], "accuracy", method="standard", decoding="greedy", data="cloze_function")
    assert found == pytest.approx(np.mean(right))


def test_judge_loss_by_hand(root, spec):
    bench = Bench(spec, root)
    passages = bench.passages(refer("wild-L"))
    found = decoding.judge_losses(bench, passages.prompts[:2], passages.suffixes[:2])
    for row, loss in zip(passages.ids[:2].tolist(), found, strict=True):
        own = log_probs(root, "background-L", row)
        by_hand = [-float(own[t - 1, row[t]]) for t in range(PREFIX, PREFIX + SUFFIX)]
        assert loss == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_mass_is_the_main_models_on_the_words(root, spec):
    bench, members = Bench(spec, root), [5, 9, 30]
    texts = bench.stored_ids(refer("wild-L"), "background", "validation")[:3]
    by_hand = torch.cat([log_probs(root, "wild-L", ids)[:-1, members].exp().sum(1) for ids in texts])
    assert decoding.mass_on(bench, arm("wild-L"), members, texts) == pytest.approx(float(by_hand.mean()), rel=1e-5)


# ---- rows


def test_every_arm_measures_the_same_passages(measured):
    _, items = measured
    passages = items[items["metric"] == "exact_match"]
    counts = passages.groupby("run")["item"].agg(["nunique", "count"])
    assert (counts == sum(DOMAINS.values())).all().all() and len(counts) == len(every_arm())


def test_means_are_those_of_the_items(measured):
    metrics, items = measured
    rows = metrics[metrics["data"].eq("passages") & metrics["subset"].eq("prose")]
    for row in rows.itertuples():
        mine = items[items["run"].eq(row.run) & items["metric"].eq(row.metric) & items["subset"].eq("prose")]
        assert row.value == pytest.approx(mine["value"].mean(), abs=1e-5) and row.n == DOMAINS["prose"] == len(mine)


def test_times_are_positive_and_the_limit_is_there(measured):
    cost = measured[0][measured[0]["data"] == "cost"]
    assert (cost["value"] > 0).all() and set(cost["subset"]) == {"batch 1", "batch 3"}
    # not where main and auxiliary have other tokenizers: their sum is no limit of ours there
    limits = cost[cost["method"] == "limit"]
    assert set(limits["aux"]) == {"background-S"}


def test_pieces_of_a_text_join_to_it_and_keep_split_characters_whole(root):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "data" / "tokenswap" / "tokenizer")
    text = " the café near the 雪 bridge"
    ids = np.array(tokenizer(text).input_ids)
    marks = np.zeros(len(ids), bool)
    marks[0] = True
    found = json.loads(pieces(tokenizer, ids, marks))
    assert "".join(piece for piece, _ in found) == text and [m for _, m in found] == [True] + [False] * (len(found) - 1)


def test_matched_words_add_up_to_the_target_from_below():
    words = [("a", 5), ("b", 4), ("c", 3), ("d", 1)]
    assert matched(words, np.array([0, 1, 2, 3]), 9) == ["a", "b"]
    assert matched(words, np.array([1, 0, 2, 3]), 8) == ["b", "c", "d"]


# ---- stopping


def test_a_stopped_job_goes_on_with_the_next_arm(root, spec, tmp_path, monkeypatch):
    chosen = [arm("wild-L"), arm("wild-L", "memfree")]
    job = spec.model_copy(update={"arms": chosen, "experiments": ["x", "x"]})
    seen = []
    own = measuring.measure

    def until_memfree(bench, one, experiment):
        seen.append(one.method)
        if one.method == "memfree" and seen.count("memfree") == 1:
            raise KeyboardInterrupt
        return own(bench, one, experiment)

    monkeypatch.setattr(measuring, "measure", until_memfree)
    with pytest.raises(KeyboardInterrupt):
        measuring.measure_all(job, root, tmp_path, "c")
    metrics, _ = measuring.measure_all(job, root, tmp_path, "c")
    assert seen == ["standard", "memfree", "memfree"] and set(metrics["method"]) == {"standard", "memfree"}
    measuring.measure_all(job, root, tmp_path, "other code")
    assert seen[3:] == ["standard", "memfree"], "other code measures again"


# ---- bad input


def test_too_short_texts_and_too_many_content_words_are_named(root, spec):
    bench = Bench(spec, root)
    with pytest.raises(UserError, match=r"fewer than 99 tokens of wild-L .* write a smaller prefix or suffix"):
        bench.stored_ids(refer("wild-L"), "passages_prose", "train", 99)
    with pytest.raises(UserError, match=r"content-5000: the text has \d+ content words"):
        bench.words(arm("wild-L", "tokenswap", "background-S", "content-5000"))


def test_every_measure_has_a_function():
    assert set(measuring.MEASURES) == set(EVERYTHING)
