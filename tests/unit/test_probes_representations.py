"""The probes of representations and capabilities against plain loops, one sequence at a time and without padding."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from memorization.data.patterns import generator
from memorization.errors import UserError
from memorization.methods.goldfish import goldfish_mask
from memorization.models import build as models
from memorization.probes import capabilities as able
from memorization.probes import representations as spectra
from memorization.probes.scheduled import Context
from memorization.probes.spectrum import Spectrum
from memorization.provenance.record import RowLog
from memorization.specs import ModelSpec, OptimizerSpec
from memorization.training import loop
from memorization.training.items import pad
from memorization.training.schedule import batch_at
from tiny_geometry import PROBES, capability_probe, make_geometry, pretraining_run

WIDTH, LAYERS, VOCABULARY, LONGEST = 32, 2, 24, 16
SPEC = ModelSpec(
    architecture="gpt_neox", layers=LAYERS, width=WIDTH, heads=2, positions=24, vocabulary=VOCABULARY, tied=False,
    initializer_std=0.3,
)  # fmt: skip
TEXTS, SEQUENCES = 280, 270  # more than are measured, and more than a batch
QUESTIONS = 45  # with 4 choices, more than a batch
OPTIONS = {"sequences": SEQUENCES, "resamples": 4, "families": [0], "sets": ["other", "absent"], "prompts": ["short"]}
CHOICES = {"texts": ["text", "facts", "absent"], "questions": ["facts", "open", "absent"], "components": [3]}


@pytest.fixture(scope="module")
def model():
    """A random model whose norms are not the identity."""
    made = models.build(SPEC, seed=1).eval()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    return made


@pytest.fixture(scope="module")
def items():
    """Texts of unequal lengths, some of another set between them; short prompts, 5 different ones; and questions."""
    rng = np.random.default_rng(3)
    sequences, prompt, completion, subset, wrong = [], [], [], [], []

    def add(name, ids, begin=0, answer=0, others=()):
        sequences.append([int(one) for one in ids])
        prompt.append(begin)
        completion.append(answer)
        subset.append(name)
        wrong.append([list(map(int, one)) for one in others])

    def draw(length):
        return rng.integers(0, VOCABULARY, length).tolist()

    for k in range(TEXTS):
        add("text", draw(LONGEST - k % 7))
        if k % 5 == 0:
            add("other", draw(9 + k % 3))
        if k % 20 == 0:
            add("short", [1, 2 + k // 20 % 5, 3, *draw(1 + k // 20 % 2)], 3, 1)
    for k in range(QUESTIONS):
        ids, begin, answer = draw(4 + k % 5), 4 + k % 5, 1 + k % 3
        # behind the answer the text goes on, as in the sets of facts
        add("facts", [*ids, *draw(answer + k % 4)], begin, answer, [draw(1 + (k + one) % 3) for one in range(3)])
    for _ in range(5):
        add("open", draw(8), 6, 2)
    made = pad(sequences, prompt, subset, "validation")
    return made.__class__(**{**made.__dict__, "completion": np.array(completion), "distractors": wrong})


def context_of(model, items, step=0, steps=10, **changes):
    fields = {"name": "run", "seed": 5, "steps": steps, "batch_size": 4, "objective": "causal_lm"}
    fields |= {"objective_options": {}, "optimizer": OptimizerSpec(), **changes}
    return Context(SimpleNamespace(**fields), model, items, items, step=step)


def ids_of(items, k):
    return items.input_ids[k, : items.length[k]].tolist()


def states_of(model, ids):
    """Of one text: states (T, d) float64 of every layer, the last one behind the final norm."""
    with torch.no_grad():
        output = model.gpt_neox(torch.tensor([ids]), output_hidden_states=True)
    return [layer[0].double().numpy() for layer in (*output.hidden_states[:-1], output.last_hidden_state)]


def spectrum_of(features, centred=True):
    """Eigenvalues of the covariance, by the singular values of the features."""
    features = np.asarray(features, dtype=np.float64)
    features = features - features.mean(0) if centred else features
    found = np.linalg.svd(features, compute_uv=False) ** 2 / len(features)
    return np.concatenate([found, np.zeros(max(0, features.shape[1] - len(found)))])


def rank_of(values):
    shares = values / values.sum() + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))


def line_of(values, window):
    """(alpha, R^2) by numpy's weighted fit; its weights multiply residuals, so they are square roots."""
    d = len(values)
    first, last = (max(1, round(0.05 * d + 1e-9)), round(0.5 * d)) if window == "scaled" else (12, min(100, d - 1))
    rank = np.arange(first, last + 1)
    x, y = np.log(rank), np.log(values[first - 1 : last])
    slope, offset = np.polyfit(x, y, 1, w=np.sqrt(1 / rank))
    residual = y - slope * x - offset
    return -slope, 1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum()


@pytest.fixture(scope="module")
def found(model, items):
    """Rows and frames of a step with all families."""
    return spectra.representations(context_of(model, items), OPTIONS)


@pytest.fixture(scope="module")
def every_text(model, items):
    """States of each text on its own."""
    return [states_of(model, ids_of(items, k)) for k in np.flatnonzero(items.subset == "text")]


@pytest.fixture(scope="module")
def features(every_text):
    """{(layer, token): features of the text, one row a sequence, or a list of rows for all tokens}."""
    texts = every_text[:SEQUENCES]
    made = {(layer, "last"): [one[layer][-1] for one in texts] for layer in range(LAYERS + 1)}
    made[LAYERS, "mean"] = [one[-1].mean(0) for one in texts]
    made[LAYERS, "all"] = [row for one in texts for row in one[-1]]
    return made | {("prefix", n): [one[-1][min(n, len(one[-1])) - 1] for one in texts] for n in (4, 8, 12, 16)}


def expected(row, features, model, items):
    """Features that a row is about."""
    if row["subset"] != "text":
        rows = np.flatnonzero(items.subset == row["subset"])
        ends = items.prompt if row["token"] == "answer" else items.length
        return [states_of(model, ids_of(items, k))[-1][ends[k] - 1] for k in rows]
    if row["length"] != LONGEST:
        return features["prefix", row["length"]]
    return features[row["layer"], row["token"]][: None if row["token"] == "all" else row["sequences"]]


def test_every_row_equals_the_spectrum_of_features_gathered_one_by_one(model, items, found, features):
    rows = found[0]
    for row in rows:
        gathered = expected(row, features, model, items)
        values = spectrum_of(gathered, centred=bool(row["centred"]))
        alpha, r2 = line_of(values, row["window"]) if row["metric"] != "rank_me" else (0, 0)
        wanted = {"rank_me": rank_of(values), "alpha": alpha, "alpha_r2": r2}[row["metric"]]
        assert row["value"] == pytest.approx(wanted, rel=2e-4), row
        assert row["n"] == len(gathered) and row["split"] == "validation"
    kinds = {(r["choice"], r["layer"], r["token"], r["sequences"], r["length"], r["centred"]) for r in rows}
    assert len(kinds) > 20


def test_each_family_is_complete_and_holds_the_basic_measurement(found):
    rows = found[0]
    table: dict[str, dict] = {}
    columns = {"layer": "layer", "token": "token", "sequences": "sequences", "length": "length", "centring": "centred"}
    for row in rows:
        if row["metric"] == "rank_me":
            table.setdefault(row["choice"], {})[row[columns.get(row["choice"], "subset")]] = row["value"]
    basic = table["default"]["text"]
    assert table == {
        "default": {"text": basic},
        "layer": {0: table["layer"][0], 1: table["layer"][1], LAYERS: basic},
        "token": {"last": basic, "mean": table["token"]["mean"], "all": table["token"]["all"]},
        # a sixteenth would be fewer sequences than features
        "sequences": {**{n: table["sequences"][n] for n in (33, 67, 135)}, SEQUENCES: basic},
        "length": {**{n: table["length"][n] for n in (4, 8, 12)}, LONGEST: basic},
        "centring": {1: basic, 0: table["centring"][0]},
        "window": {"text": basic},
        "data": {"text": basic, "other": table["data"]["other"], "short": table["data"]["short"]},
    }
    for choice in ("layer", "token", "sequences", "length", "centring"):
        assert len(set(table[choice].values())) == len(table[choice]), "what is varied makes a difference"
    windows = {row["window"]: row["value"] for row in rows if row["choice"] == "window" and row["metric"] == "alpha"}
    alpha = next(row["value"] for row in rows if row["choice"] == "default" and row["metric"] == "alpha")
    assert windows.keys() == {"scaled", "paper"} and windows["scaled"] == alpha


def test_other_steps_have_the_basic_measurement_and_the_prompts_only(model, items, found):
    rows, _ = spectra.representations(context_of(model, items, step=3), OPTIONS)
    assert [(row["choice"], row["subset"]) for row in rows if row["metric"] == "rank_me"] == [
        ("default", "text"), ("data", "text"), ("data", "short"),
    ]  # fmt: skip
    basic = [row for row in found[0] if row["choice"] == "default"]
    assert [row for row in rows if row["choice"] == "default"] == basic
    bare, _ = spectra.representations(context_of(model, items, step=3), {**OPTIONS, "prompts": []})
    assert bare == basic


def test_few_different_prompts_have_a_rank_but_no_exponent(found):
    rows = [row for row in found[0] if row["subset"] == "short"]
    assert [(row["metric"], row["token"], row["sequences"]) for row in rows] == [("rank_me", "answer", 14)]
    assert 1 < rows[0]["value"] < 5


def test_narrow_models_have_no_window_of_the_paper():
    values = np.arange(1.0, 14.0)[::-1]  # ranks 12 and 13 are no line
    rows = spectra.spectrum_rows(values, spectra.WINDOWS)
    assert [(row["metric"], row["window"]) for row in rows] == [
        ("rank_me", "scaled"), ("alpha", "scaled"), ("alpha_r2", "scaled"),
    ]  # fmt: skip


# ---- resamples


def test_a_resample_is_the_spectrum_of_repeated_rows(found, features):
    frame = found[1][0]
    final = np.array(features[LAYERS, "last"])
    draws = generator("representations", "resamples", 5, SEQUENCES).multinomial(
        SEQUENCES, np.full(SEQUENCES, 1 / SEQUENCES), size=4
    )
    for item, counts in enumerate(draws):
        values = spectrum_of(np.repeat(final, counts, axis=0))
        mine = frame[frame["item"] == item].set_index("metric")["value"]
        assert mine["rank_me_resample"] == pytest.approx(rank_of(values), rel=2e-4)
        assert mine["alpha_resample"] == pytest.approx(line_of(values, "scaled")[0], rel=2e-4)
    assert len(frame) == 8 and frame["value"].nunique() == 8 and set(frame["subset"]) == {"text"}


def test_resamples_are_the_same_rows_at_all_steps_and_others_for_another_seed(model, items, found):
    """The same model at another step has the same values; so curves differ by what the model has learned alone."""
    later = spectra.representations(context_of(model, items, step=7), OPTIONS)[1][0]
    assert later.equals(found[1][0])
    other = spectra.representations(context_of(model, items, seed=6), OPTIONS)[1][0]
    assert not np.isin(other["value"], later["value"]).any()


def test_a_resample_of_too_few_different_rows_has_a_rank_but_no_exponent():
    """9 rows of 32 features: never 17 different ones."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(9, WIDTH)))
    frame = spectra.resampled(rows, 3, 0, "validation").set_index("metric")["value"]
    assert frame["alpha_resample"].isna().all() and (frame["rank_me_resample"] > 1).all()


# ---- answers


def answer_by_hand(model, prompt, answer):
    """(log-likelihood, greedy exact) of one answer."""
    with torch.no_grad():
        log_p = model(torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    at = [log_p[len(prompt) - 1 + k] for k in range(len(answer))]
    exact = all(int(one.argmax()) == token for one, token in zip(at, answer, strict=True))
    return sum(float(one[token]) for one, token in zip(at, answer, strict=True)), exact


def parts_of(items, k):
    """Prompt, right answer and wrong ones of one question."""
    ids, begin = ids_of(items, k), items.prompt[k]
    return ids[:begin], ids[begin : begin + items.completion[k]], items.distractors[k]


@pytest.fixture(scope="module")
def questions(model, items):
    """The questions, every third of them with the answer that the model would write."""
    facts = items.only(["facts"])
    for k in range(0, QUESTIONS, 3):
        for place in range(facts.prompt[k], facts.prompt[k] + facts.completion[k]):
            with torch.no_grad():
                facts.input_ids[k, place] = model(facts.input_ids[k : k + 1, :place]).logits[0, -1].argmax()
    return facts


def test_answers_are_those_of_one_call_each(model, questions):
    log_p, exact, right = able.answers(model, questions)
    for k in range(QUESTIONS):
        prompt, true, wrong = parts_of(questions, k)
        mine = answer_by_hand(model, prompt, true)
        assert log_p[k] == pytest.approx(mine[0], abs=1e-4) and exact[k] == mine[1]
        assert right[k] == all(mine[0] > answer_by_hand(model, prompt, one)[0] for one in wrong)
    assert QUESTIONS // 3 <= exact.sum() < QUESTIONS and 0 < right.sum() < QUESTIONS
    lengths = {(int(p), int(c)) for p, c in zip(questions.prompt, questions.completion, strict=True)}
    assert len(lengths) > 10 and sum(map(len, questions.distractors)) + QUESTIONS > able.CHUNK


def test_questions_without_choices_have_no_choice_accuracy(model, items):
    rows, frames = able.capabilities(context_of(model, items, step=1), CHOICES)
    metrics = {name: {row["metric"] for row in rows if row["subset"] == name} for name in ("facts", "open", "absent")}
    both = {"recall", "choice_accuracy"}
    assert metrics == {"facts": both | {"cross_entropy"}, "open": {"recall"}, "absent": set()}
    assert [set(frame["subset"]) for frame in frames] == [{"facts"}, {"open"}]
    log_p, exact, right = able.answers(model, items.only(["facts"]))
    value = {row["metric"]: row["value"] for row in rows if row["subset"] == "facts"}
    assert value["recall"] == exact.mean() and value["choice_accuracy"] == right.mean()
    np.testing.assert_allclose(frames[0]["value"], log_p, rtol=1e-6)
    assert frames[0]["item"].tolist() == list(range(QUESTIONS))


def test_the_loss_is_the_mean_over_the_first_sequences(model, items):
    rows, _ = able.capabilities(context_of(model, items, step=1), CHOICES)
    losses = []
    for k in np.flatnonzero(items.subset == "text")[: able.TEXTS]:
        ids = torch.tensor([ids_of(items, k)])
        with torch.no_grad():
            losses.append(float(model(ids, labels=ids).loss))
    row = next(row for row in rows if row["metric"] == "cross_entropy" and row["subset"] == "text")
    assert row["value"] == pytest.approx(np.mean(losses), rel=1e-5) and row["n"] == able.TEXTS


# ---- interventions


def test_dropping_no_component_changes_nothing_and_is_measured_at_the_last_step_only(model, items, questions):
    rows = able.interventions(model, items, {"facts": questions}, [0])
    plain = able.accuracies("facts", questions, able.answers(model, questions), "drop_top", 0)
    assert [row for row in rows if row["intervention"] == "drop_top"] == plain
    kept = [row["value"] for row in rows if row["intervention"] == "keep_top"]
    assert kept != [row["value"] for row in plain], "the mean alone cannot answer"
    for step, wanted in ((9, {"none"}), (10, {"none", "drop_top", "keep_top"})):
        measured, _ = able.capabilities(context_of(model, items, step=step), CHOICES)
        assert {row["intervention"] for row in measured if "intervention" in row} == wanted


def test_interventions_by_hand(model, items, questions, every_text):
    """The head applied to final states of which components were removed, for every answer on its own."""
    texts = np.array([one[-1][-1] for one in every_text])
    mean = texts.mean(0)
    directions = np.linalg.svd(texts - mean, full_matrices=False)[2]
    head = model.lm_head.weight.detach().double().numpy()
    rows = able.interventions(model, items, {"facts": questions}, [3, 20])
    states = {}
    for n in range(QUESTIONS):
        prompt, true, wrong = parts_of(questions, n)
        states |= {(n, c): states_of(model, [*prompt, *one])[-1] for c, one in enumerate([true, *wrong])}

    def scored(n, c, answer, which, k):
        prompt, top = questions.prompt[n], directions[:k]
        centred = states[n, c] - mean
        part = centred @ top.T @ top
        logits = (mean + (part if which == "keep_top" else centred - part)) @ head.T
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        at = log_p[prompt - 1 : -1]
        picked = [one[token] for one, token in zip(at, answer, strict=True)]
        return sum(picked), bool((at.argmax(1) == answer).all())

    seen = set()
    for k, which in ((3, "drop_top"), (3, "keep_top"), (20, "drop_top"), (20, "keep_top")):
        exact, right = [], []
        for n in range(QUESTIONS):
            _, true, wrong = parts_of(questions, n)
            mine = scored(n, 0, true, which, k)
            exact.append(mine[1])
            right.append(all(mine[0] > scored(n, c + 1, one, which, k)[0] for c, one in enumerate(wrong)))
        mine = [row for row in rows if (row["intervention"], row["components"]) == (which, k)]
        values = {row["metric"]: row["value"] for row in mine}
        assert values == {"recall": np.mean(exact), "choice_accuracy": np.mean(right)}
        seen.add(tuple(values.values()))
    assert len(rows) == 8 and len(seen) > 2


# ---- gradient and learning rate


@pytest.mark.parametrize("options", [{}, {"k": 2}, {"k": 3}])
def test_the_gradient_norm_is_that_of_the_batch_just_taken(model, items, options):
    changes = {"objective": "goldfish", "objective_options": options} if options else {}
    context = context_of(model, items, step=2, **changes)
    context.batch = np.array([2, 11, 300, 2])
    mine = copy.deepcopy(model)
    total, count = 0.0, 0
    for k in context.batch:
        ids = torch.tensor([ids_of(items, k)])
        kept = goldfish_mask(ids, options["k"], "hash-table")[0, 1:] if options else torch.ones(ids.shape[1] - 1).bool()
        log_p = mine(ids).logits[0, :-1].log_softmax(-1)
        total = total - log_p[torch.arange(ids.shape[1] - 1), ids[0, 1:]][kept].sum()
        count += int(kept.sum())
    (total / count).backward()
    wanted = float(torch.cat([p.grad.flatten() for p in mine.parameters()]).double().norm())
    assert able.gradient_norm(context) == pytest.approx(wanted, rel=1e-4)
    assert all(p.grad is None for p in model.parameters()), "training sees nothing of it"


def test_at_step_0_the_gradient_is_that_of_the_first_items(model, items):
    first, chosen = context_of(model, items), context_of(model, items)
    chosen.batch = np.arange(4)
    assert able.gradient_norm(first) == able.gradient_norm(chosen)
    chosen.batch = np.arange(4, 8)
    assert able.gradient_norm(first) != able.gradient_norm(chosen)


def test_a_run_writes_the_rate_of_the_update_just_taken_and_its_gradient(tmp_path, monkeypatch):
    """Rates as the optimizer was given them; the gradient at the model of that step, of that step's batch."""
    root = tmp_path / "results" / "test"
    make_geometry(root)
    rates = []
    real = loop.set_learning_rate
    monkeypatch.setattr(loop, "set_learning_rate", lambda optimizer, rate: (rates.append(rate), real(optimizer, rate)))
    optimizer = OptimizerSpec(name="adamw", learning_rate=0.01, schedule="cosine", warmup=2)
    probe = capability_probe([0, 1, 2, 3, 4], questions=[], texts=["text"])
    run = pretraining_run(optimizer=optimizer, steps=6, keep=[3], probes=[probe])
    loop.train(run, root, tmp_path / "run", code="c")
    rows = RowLog(tmp_path / "run" / "rows").collect()
    rate = rows[rows["metric"] == "learning_rate"].set_index("step")["value"]
    assert rate.index.tolist() == [0, 1, 2, 3, 4, 6] and len(set(rates)) == 4
    assert [rate[step] for step in (1, 2, 3, 4, 6)] == [rates[step - 1] for step in (1, 2, 3, 4, 6)]
    assert rate[0] == rates[0], "before the first update, the rate that it will have"

    items, validation = loop.load_items(run, root)
    model = models.load(tmp_path / "run" / "model" / "step3").eval()
    context = Context(run, model, items, validation, step=3)
    context.batch = items.stream()[batch_at(2, len(items), run.batch_size, run.seed)]
    norm = rows[rows["metric"] == "gradient_norm"].set_index("step")["value"]
    assert norm[3] == pytest.approx(able.gradient_norm(context), rel=1e-5)
    assert probe.function == f"{PROBES}.capabilities:capabilities"


# ---- bad input


def broken(model):
    """A copy with one weight that is not a number."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        made.gpt_neox.layers[1].attention.dense.weight[0, 0] = float("nan")
    return made


@pytest.mark.parametrize(("step", "cause"), [(0, "the weights it starts from"), (4, "training has diverged: write")])
def test_weights_that_are_no_numbers_are_one_sentence(model, items, step, cause):
    context = context_of(broken(model), items, step=step)
    with pytest.raises(UserError, match=f"run: representations are NaN or infinite at step {step}, so {cause}"):
        spectra.representations(context, OPTIONS)
    with pytest.raises(UserError, match=f"run: the loss of text is NaN or infinite at step {step}, so {cause}"):
        able.capabilities(context, CHOICES)
    with pytest.raises(UserError, match=f"answers to facts is NaN or infinite at step {step}, so {cause}"):
        able.capabilities(context, {**CHOICES, "texts": []})


def test_texts_without_tokens_or_no_texts_are_named(model):
    empty = pad([[], [], [], []], [0] * 4, ["text"] * 4, "validation")
    with pytest.raises(UserError, match="of which there are 4, 4 without tokens: add the set to `measured`"):
        spectra.representations(context_of(model, empty), OPTIONS)
    mixed = pad([[1, 2], [], [3]], [0] * 3, ["text"] * 3, "validation")
    with pytest.raises(UserError, match="of which there are 3, 1 without tokens"):
        spectra.representations(context_of(model, mixed), OPTIONS)
    other = pad([[1, 2], [3, 4]], [0] * 2, ["other"] * 2, "validation")
    with pytest.raises(UserError, match="of which there are 0, 0 without tokens"):
        spectra.representations(context_of(model, other), OPTIONS)


@pytest.mark.parametrize(("prompt", "completion", "wrong"), [(0, 2, [[1]]), (2, 0, [[1]]), (2, 9, [[1]]), (2, 2, [[]])])
def test_what_is_no_question_is_named(model, prompt, completion, wrong):
    made = pad([[1, 2, 3, 4]], [prompt], ["facts"], "validation")
    items = made.__class__(**{**made.__dict__, "completion": np.array([completion]), "distractors": [wrong]})
    with pytest.raises(UserError, match=r"item 0 of facts has (no prompt or no answer|a wrong answer without tokens)"):
        able.answers(model, items)


def test_the_spectrum_of_the_probe_is_the_one_of_its_class(found, features):
    """The oracle above and the class that figures are made with agree on the whole text."""
    values = Spectrum().update(np.array(features[LAYERS, "last"])).eigenvalues()
    np.testing.assert_allclose(values[:-1], spectrum_of(features[LAYERS, "last"])[:-1], rtol=1e-8)
