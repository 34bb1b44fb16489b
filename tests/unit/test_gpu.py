"""The same loop and the same decoding on a GPU: skipped where there is none."""

import pytest
import torch
from swap_models import WORDS, generate, model, processor, prompts

from memorization.evaluate.arms import measure_all
from memorization.methods.tokenswap import swap_log_probs
from memorization.models import build as models
from memorization.models.norms import find_norms
from memorization.provenance.record import RowLog
from memorization.specs import OptimizerSpec
from memorization.training.loop import Control, train
from tiny import tiny_run
from tiny_arms import tiny_arms
from tiny_labelled import (
    gradients_probe,
    image_run,
    labelled_run,
    make_labelled,
    pretraining_run,
    text_model,
    word_run,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
STILL = {"model": tiny_run().model.model_copy(update={"dropout": 0.0}), "device": "cuda"}


def losses(work) -> list[float]:
    rows = RowLog(work / "rows").collect()
    return rows[rows["metric"] == "loss"]["value"].tolist()


def test_a_gpu_run_measures_what_a_cpu_run_does(data_root, tmp_path):
    train(tiny_run(**{**STILL, "device": "cpu"}), data_root, tmp_path / "cpu", code="c")
    train(tiny_run(**STILL), data_root, tmp_path / "gpu", code="c")
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_bfloat16_agrees_within_its_precision(data_root, tmp_path):
    train(tiny_run(**STILL), data_root, tmp_path / "full", code="c")
    train(tiny_run(**STILL, precision="bfloat16"), data_root, tmp_path / "half", code="c")
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "full"), rel=0.03)


def test_a_killed_gpu_run_resumes(data_root, tmp_path):
    class Killed(BaseException):
        pass

    def after(step: int) -> None:
        if step == 20:
            raise Killed

    with pytest.raises(Killed):
        train(
            tiny_run(**STILL),
            data_root,
            tmp_path / "r",
            code="c",
            control=Control(after_step=after, save_every_steps=6),
        )
    train(tiny_run(**STILL), data_root, tmp_path / "r", code="c")
    train(tiny_run(**STILL), data_root, tmp_path / "whole", code="c")
    assert losses(tmp_path / "r") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


@pytest.mark.parametrize("aux_device", ["cuda", "cpu"])
@pytest.mark.parametrize("kind", ["gpt2", "neox", "llama"])
def test_tokenswap_decides_on_a_gpu_as_the_formula_says(kind, aux_device):
    main, aux = model("neox", 1).cuda(), model(kind, 2).to(aux_device)
    ids = prompts(3, 6).cuda()
    written = generate(main, ids, processor(aux))
    for step in range(ids.shape[1], written.shape[1]):
        with torch.no_grad():
            logits = (one(written[:, :step].to(one.device)).logits[:, -1].cpu() for one in (main, aux))
        final = swap_log_probs(*logits, WORDS, WORDS)
        chosen = final.gather(1, written[:, step, None].cpu())[:, 0]
        assert (final.amax(1) - chosen < 1e-3).all(), "rounding may only decide between tokens of equal probability"


def test_decoding_jobs_measure_on_a_gpu_what_they_do_on_a_cpu(tmp_path):
    spec = tiny_arms(tmp_path)
    measured = {
        device: measure_all(spec.model_copy(update={"device": device}), tmp_path, tmp_path / device, "c")[0]
        for device in ("cpu", "cuda")
    }
    losses = [
        frame[frame["metric"] == "cross_entropy"].set_index("run")["value"].to_dict() for frame in measured.values()
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


LABELLED = {
    "text_pre": labelled_run(strip="early", probes=[*labelled_run().probes, gradients_probe(6)]),
    "text_post": labelled_run(
        strip="early", model=text_model("openai_gpt"), probes=[*labelled_run().probes, gradients_probe(6)]
    ),
    "word": word_run(strip="early", probes=[*labelled_run().probes, gradients_probe(6)]),
    "image": image_run(strip="early", probes=[*labelled_run().probes, gradients_probe(6)]),
    "first stage": pretraining_run(),
}


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_labelled_runs_measure_on_a_gpu_what_they_do_on_a_cpu(tmp_path, name):
    """Stripped norms stay 1 and 0; gradients at the norms, which no update came before, are equal but for rounding."""
    make_labelled(tmp_path / "results")
    found = {}
    for device in ("cpu", "cuda"):
        run = LABELLED[name].model_copy(update={"device": device})
        entry = train(run, tmp_path / "results", tmp_path / device, code="c")
        assert entry["device"].startswith(device)
        rows = RowLog(tmp_path / device / "rows").collect()
        keys = ["step", "metric", "split", "subset"]
        keys += [key for key in ("layer", "role", "definition", "stripped") if key in rows]
        found[device] = rows.set_index(keys)["value"].sort_index()
    assert len(found["cpu"]) and found["cuda"].index.equals(found["cpu"].index)
    step, metric = (found["cpu"].index.get_level_values(level) for level in ("step", "metric"))
    for chosen, near in ((step == 0, 1e-3), (metric.isin(["loss", "cross_entropy"]), 0.02)):
        assert found["cuda"][chosen].tolist() == pytest.approx(found["cpu"][chosen].tolist(), rel=near, abs=1e-6)
    if LABELLED[name].strip == "early":
        assert metric.str.startswith("gradient_").sum() == 3 * 24
        model = models.load(tmp_path / "cuda" / "model", LABELLED[name].model)
        early = [norm.module for norm in find_norms(model) if norm.layer == 0]
        assert len(early) == 2 and all((n.weight == 1).all() and not n.bias.any() for n in early)


def test_muon_trains_on_a_gpu_and_a_killed_run_resumes(tmp_path):
    class Killed(BaseException):
        pass

    def after(step: int) -> None:
        if step == 7:
            raise Killed

    make_labelled(tmp_path / "results")
    muon = OptimizerSpec(name="muon", learning_rate=0.01, norm_rate=3.0)
    run = labelled_run(strip="late", optimizer=muon, device="cuda")
    with pytest.raises(Killed):
        control = Control(after_step=after, save_every_steps=3)
        train(run, tmp_path / "results", tmp_path / "killed", code="c", control=control)
    for name in ("killed", "whole"):
        train(run, tmp_path / "results", tmp_path / name, code="c")
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
