"""Training from another run, duplicates in a corpus, other architectures and losses."""

import shutil

import numpy as np
import pytest
import torch

from memorization.models import build as models
from memorization.probes.completion import cross_entropy, teacher_forced
from memorization.provenance.record import RowLog
from memorization.specs import DataPart, DataSpec, Initial, ModelSpec, ProbeSpec
from memorization.training.items import load_items, pad
from memorization.training.loop import train
from tiny import tiny_run

PASSAGES = "memorization.probes.scheduled:passages"


def part(**changes):
    return DataPart(**{"set": "random_digits", "folder": "random_digits", "items": 12, **changes})


def data(*parts, validation=4):
    return DataSpec(parts=list(parts), validation=validation)


def test_exposures_by_hand():
    assert part(items=5, copies=[1, 10, 50]).exposures == 1 + 10 + 50 + 1 + 10
    assert data(part(items=5, copies=[3]), part(items=2)).exposures == 17


def test_an_epoch_holds_each_item_as_often_as_its_copies(data_root):
    run = tiny_run(data=data(part(items=4, copies=[1, 3])))
    items, _ = load_items(run, data_root)
    assert items.stream().tolist() == [0, 1, 1, 1, 2, 3, 3, 3]


def test_items_are_taken_from_the_first_wanted_one_on(data_root):
    every, _ = load_items(tiny_run(), data_root)
    some, _ = load_items(tiny_run(data=data(part(items=3, first=5))), data_root)
    width = some.input_ids.shape[1]
    assert torch.equal(some.input_ids, every.input_ids[5:8, :width])


def test_validation_comes_only_from_parts_that_hold_some(data_root):
    run = tiny_run(data=data(part(set="a", items=4, held_out=False), part(set="b", items=4)))
    _, validation = load_items(run, data_root)
    assert set(validation.subset) == {"b"} and len(validation) == 4


def test_only_keeps_the_items_of_some_subsets():
    items = pad([[1, 2], [3, 4], [5, 6]], [1, 1, 1], ["a", "b", "a"], "train", [1, 2, 3])
    kept = items.only(["a"])
    assert kept.input_ids.tolist() == [[1, 2], [5, 6]] and kept.copies.tolist() == [1, 3]


@pytest.fixture(scope="module")
def after_base(data_root, tmp_path_factory):
    """A results folder with a trained run `base-s3`."""
    root = tmp_path_factory.mktemp("starts") / "results"
    shutil.copytree(data_root, root)
    train(tiny_run("base-s3"), root, root / "work", code="c")
    (root / "models").mkdir()
    (root / "work" / "model").rename(root / "models" / "base-s3")
    return root


def losses(work):
    rows = RowLog(work / "rows").collect()
    rows = rows[(rows.metric == "loss") & (rows.split == "train")]
    return rows.set_index("step")["value"]


def test_a_run_that_starts_from_another_measures_its_last_model_first(after_base, tmp_path):
    before = losses(after_base / "work")
    train(tiny_run("more", initial=Initial(run="base-s3")), after_base, tmp_path / "more", code="c")
    after = losses(tmp_path / "more")
    assert after[0] == pytest.approx(before[40], abs=1e-6) and after[40] < before[40]


def test_starting_from_another_run_gives_the_same_bytes_twice(after_base, tmp_path):
    weights = []
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)  # what ran before in this process must not matter
        train(tiny_run("more", initial=Initial(run="base-s3")), after_base, tmp_path / name, code="c")
        weights.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_duplicated_items_are_memorized_first(data_root, tmp_path):
    probe = ProbeSpec(function="memorization.probes.scheduled:completion", every=100)
    parts = [part(set="often", items=6, copies=[12]), part(set="once", items=6, first=6, held_out=False)]
    run = tiny_run(data=data(*parts), steps=100, probes=[probe])
    train(run, data_root, tmp_path, code="c")
    rows = RowLog(tmp_path / "rows").collect()
    last = rows[(rows.step == 100) & (rows.metric == "loss") & (rows.split == "train")].set_index("subset")["value"]
    assert last["often"] < last["once"] - 0.3


def test_goldfish_trains_another_model_than_the_plain_loss(data_root, tmp_path):
    weights = {}
    for name, options in {"causal_lm": {}, "goldfish": {"k": 3}}.items():
        run = tiny_run(objective=name, objective_options=options, steps=5, probes=[])
        train(run, data_root, tmp_path / name, code="c")
        weights[name] = (tmp_path / name / "model" / "model.safetensors").read_bytes()
    assert weights["causal_lm"] != weights["goldfish"]


# ---- the passages probe


def test_the_passages_probe_agrees_with_the_functions_it_names(data_root, tmp_path):
    probe = ProbeSpec(function=PASSAGES, every=20, options={"subsets": ["often"]})
    parts = [part(set="often", items=6, copies=[3]), part(set="once", items=6, first=6)]
    run = tiny_run(data=data(*parts), probes=[probe])
    train(run, data_root, tmp_path, code="c")
    items, validation = load_items(run, data_root)
    model = models.load(tmp_path / "model").eval()
    chosen = items.only(["often"])
    exact, loss = teacher_forced(model, chosen, [(chosen.prompt, run.completion_length)])[0]
    rows = RowLog(tmp_path / "rows").collect()
    last = rows[rows.step == 40].set_index(["metric", "subset"])["value"]
    assert last["exact_match", "often"] == pytest.approx(exact.mean())
    assert last["loss", "often"] == pytest.approx(loss.mean(), rel=1e-5)
    held_out = rows[(rows.step == 40) & (rows.metric == "cross_entropy") & (rows.subset == "all")]["value"].item()
    assert held_out == pytest.approx(cross_entropy(model, validation).mean(), rel=1e-5)
    assert set(rows["subset"]) == {"often", "once", "all"}, "the other training items are not looked at"


def test_cross_entropy_is_the_mean_loss_of_every_token_but_the_first():
    model = models.build(ModelSpec(layers=1, width=16, positions=16, vocabulary=20), seed=0).eval()
    sequences = [[1, 2, 3, 4, 5], [6, 7, 8]]
    items = pad(sequences, [0, 0], ["a", "a"], "validation")
    for value, ids in zip(cross_entropy(model, items), sequences, strict=True):
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        assert value == pytest.approx(float(wanted), rel=1e-5)


# ---- GPT-NeoX


def spec(**changes):
    return ModelSpec(architecture="gpt_neox", layers=2, width=32, heads=2, positions=16, vocabulary=40, **changes)


def test_gpt_neox_is_the_class_of_transformers_with_a_tied_head():
    model = models.build(spec(), seed=0)
    assert type(model).__name__ == "GPTNeoXForCausalLM"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    weights = sum(p.numel() for p in model.gpt_neox.layers.parameters() if p.dim() == 2)
    assert weights == spec().parameters


def test_gpt_neox_starts_with_the_standard_deviation_of_its_spec():
    model = models.build(spec(initializer_std=0.3), seed=0)
    assert float(model.get_input_embeddings().weight.detach().std()) == pytest.approx(0.3, rel=0.1)


def test_gpt_neox_survives_saving(tmp_path):
    model = models.build(spec(), seed=0).eval()
    models.save(model, tmp_path)
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, models.load(tmp_path).eval()(ids).logits)


def test_the_seed_decides_the_weights_of_either_class():
    for architecture in ("gpt2", "gpt_neox"):
        one, two, other = (
            models.build(spec().model_copy(update={"architecture": architecture}), seed=s) for s in (0, 0, 1)
        )
        first = [next(iter(m.parameters())).detach().numpy() for m in (one, two, other)]
        assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])
