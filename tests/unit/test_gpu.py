"""The same loop on a GPU: skipped where there is none."""

import pytest
import torch

from memorization.provenance.record import RowLog
from memorization.training.loop import Control, train
from tiny import tiny_run

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
