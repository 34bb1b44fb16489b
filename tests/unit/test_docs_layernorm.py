"""The page of `layernorm` and its columns: what they say is what is found, written and printed."""

import re

import norm_models
import pytest
import yaml
from test_docs import CATALOG, ROOT, documented, example

from memorization.training.__main__ import collect
from memorization.training.loop import train
from tiny import tiny_group
from tiny_labelled import gradients_probe, image_pretraining_run, labelled_run, make_labelled, pretraining_run

PAGE = (ROOT / "docs/layernorm.md").read_text()


def test_the_examples_of_layernorm_are_right(capsys):
    """All of its page and of the README, on a tiny BERT: what they change and print is what the pages say."""
    import torch

    blocks = [*re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S), example("README.md", "strip_norm_parameters")]
    model = norm_models.tiny("bert", 6)
    torch.nn.init.normal_(model.bert.embeddings.word_embeddings.weight)

    def batches(seed):
        rng = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, 40, (4, 7), generator=rng)
        labels = torch.randint(0, 3, (4,), generator=rng)
        return [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}]

    names = {"model": model, "test_batches": batches(0), "noisy_batches": batches(1)}
    for source in blocks:
        kept = [line for line in source.splitlines() if "from_pretrained" not in line and "transformers" not in line]
        exec("\n".join(kept), names)
    assert names["report"].parameters == 2 * 2 * 2 * 16 and len(names["wrong"]) == 20
    assert len(names["learning"].names) == 12 and (names["learning"].text > 0).all()
    early = {f"bert.encoder.layer.{k}.{name}" for k in (0, 1) for name in ("attention.output", "output")}
    assert {name.removesuffix(".LayerNorm") for name in names["report"].names} == early
    assert all(not names["moved"][f"{name}.LayerNorm"] for name in early)
    printed = re.search(r"^# (\{'memorization'.*)$", PAGE, re.M)[1]
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize("name", norm_models.PAPERS)
def test_the_table_of_norm_classes_is_what_is_found(name):
    from memorization.models.norms import find_norms

    model = norm_models.tiny(name)
    rows = {cells[1].strip("` "): cells for cells in (line.split("|") for line in PAGE.splitlines()) if len(cells) == 6}
    norms = find_norms(model)
    _, _, number, inside, outside, _ = rows[type(model).__name__]
    as_other = {"as BERT": "Bert", "the same": "Bert", "as ViT": "ViT"}
    told = next((key for key in as_other if key in inside), None)
    if told:
        inside = next(cells[3] for kind, cells in rows.items() if kind.startswith(as_other[told]))
    first = [norm for norm in norms if norm.layer == 0]
    assert [norm.role for norm in first] == ["attention", "feed_forward"] and len(norms) == int(number)
    ends = re.findall(r"`([\w.]+)`", inside.split(", class")[0])
    assert [norm.name.split(".0.", 1)[1] for norm in first] == ends
    found = {(norm.name.partition(".")[2], norm.role) for norm in norms if norm.layer is None}
    assert found == set(re.findall(r"`([\w.]+)` \((\w+)\)", outside))


def test_models_sets_and_experiments_of_layernorm_are_on_its_page():
    config = yaml.safe_load((ROOT / "config/papers/layernorm.yaml").read_text())
    first = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
    assert {*config["sets"], *config["models"], *config["experiments"]} <= first
    section = PAGE.split("\n## Experiments\n")[1].split("\n## ")[0]
    for name, experiment in config["experiments"].items():
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}` |"))
        asking = {f for f, e in CATALOG.items() if e["paper"] == "layernorm" and name in e["experiments"]}
        assert set(re.findall(r"`(layernorm_\w+)`", row)) == asking, name
        arms = row.split(" | ")[1].split(";")[-1].replace(",", " ").split()
        assert arms == experiment["arms"] if "arms" in experiment else name == "pretraining"


def test_columns_and_metrics_of_labelled_items_are_documented(tmp_path):
    """Real runs of both stages; docs/columns.md names what they write, and in which stage and file."""
    make_labelled(tmp_path)
    labels = {"form": "classifier", "start": "pretrained", "budget": 4}
    tuned = labelled_run()
    tuned = tuned.model_copy(update={"probes": [*tuned.probes, gradients_probe()]})
    group = tiny_group(
        *(
            run.model_copy(update={"labels": {**run.labels, **labels}})
            for run in (pretraining_run(), image_pretraining_run(), tuned)
        )
    )
    for run in group.runs:
        train(run, tmp_path, tmp_path / "work" / run.name, code="c")
    metrics, items = collect(group, tmp_path / "work")
    shared = set(documented("metrics")) - {"prompt_length", "completion_length"}
    assert set(metrics.columns) == shared | set(documented("labelled metrics"))
    assert set(items.columns) == set(documented("items"))
    assert {*metrics["metric"], *items["metric"]} == set(documented("labelled values"))
    by_run = {run.name: run.labels["stage"] for run in group.runs}
    frames = {"metrics": metrics, "items": items.assign(stage=items["run"].map(by_run))}
    text = (ROOT / "docs/columns.md").read_text().split("<!-- labelled values -->")[1]
    for names, stage, where in re.findall(r"^\| (`.+?`) \| (\w+) \| (\w+) \|", text.split("\n\n")[0], re.M):
        for name in re.findall(r"`(\w+)`", names):
            found = {kind: set(frame.loc[frame["metric"] == name, "stage"]) for kind, frame in frames.items()}
            stages = {"pretraining", "fine_tuning"} if stage == "both" else {stage}
            assert found == {kind: stages if kind == where else set() for kind in frames}, name
