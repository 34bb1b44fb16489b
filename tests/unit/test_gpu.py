"""The same loop and the same decoding on a GPU: skipped where there is none."""

import pytest
import torch
from swap_models import WORDS, generate, model, processor, prompts

from memorization.evaluate.arms import measure_all
from memorization.methods.tokenswap import swap_log_probs
from memorization.provenance.record import RowLog
from memorization.training.loop import Control, train
from tiny import tiny_run
from tiny_arms import tiny_arms

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
