"""The work folder of a run: states saved atomically, the last two kept, checked when loaded.

A state is a folder `state-<step>` with `model.safetensors`, `optimizer.safetensors` and `state.json` (step, RNGs,
probe states, sha256 of the two). It is written under a temporary name, every file fsynced, and renamed, so a state
with its final name is whole unless the disk damaged it later, which the hashes show.
"""

import base64
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import UserError
from memorization.provenance.record import disk_errors, sha256_file

if TYPE_CHECKING:
    import torch

KEEP = 2


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flatten_optimizer(optimizer: "torch.optim.Optimizer") -> "tuple[dict[str, torch.Tensor], list[dict[str, Any]]]":
    """Split an optimizer's state into named tensors and plain parameter groups."""
    state = optimizer.state_dict()
    tensors = {f"{index}.{key}": value for index, entry in state["state"].items() for key, value in entry.items()}
    return tensors, state["param_groups"]


def restore_optimizer(
    optimizer: "torch.optim.Optimizer", tensors: "dict[str, torch.Tensor]", groups: list[dict[str, Any]]
) -> None:
    """Inverse of `flatten_optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def rng_state() -> dict[str, Any]:
    """State of every RNG that training may draw from, as JSON values."""
    import random

    import torch

    python = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    state = {
        "python": [python[0], list(python[1]), python[2]],
        "numpy": numpy_state,
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }
    if torch.cuda.is_available():
        cuda = [base64.b64encode(s.numpy().tobytes()).decode() for s in torch.cuda.get_rng_state_all()]
        state["cuda"] = cuda
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Inverse of `rng_state`."""
    import random

    import torch

    def tensor(text: str) -> "torch.Tensor":
        return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = json.loads(json.dumps(state["numpy"]))
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state)
    torch.set_rng_state(tensor(state["torch"]))
    if "cuda" in state:
        torch.cuda.set_rng_state_all([tensor(text) for text in state["cuda"]])


def save_state(
    folder: Path, step: int, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer", extra: dict[str, Any]
) -> None:
    """Save a state of `step` into the work folder and delete all but the newest two."""
    from safetensors.torch import save_file

    final, temporary = folder / f"state-{step:08d}", folder / f".state-{step:08d}.tmp"
    with disk_errors(final):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # tied weights share storage, which safetensors refuses: keep one name of each
        weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
        unique = {name: value for name, value in weights.items() if not is_tied(name, value, weights)}
        save_file(unique, temporary / "model.safetensors")
        tensors, groups = flatten_optimizer(optimizer)
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary / "optimizer.safetensors")
        hashes = {path.name: sha256_file(path) for path in sorted(temporary.glob("*.safetensors"))}
        state = {"step": step, "groups": groups, "rng": rng_state(), "sha256": hashes, **extra}
        (temporary / "state.json").write_text(json.dumps(state))
        for path in temporary.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        fsync_folder(folder)
    for old in states(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def is_tied(name: str, value: "torch.Tensor", weights: "dict[str, torch.Tensor]") -> bool:
    """Whether an earlier name holds the same storage."""
    for other, tensor in weights.items():
        if other == name:
            return False
        if tensor.data_ptr() == value.data_ptr() and tensor.shape == value.shape:
            return True
    return False


def states(folder: Path) -> list[Path]:
    """Saved states, oldest first."""
    return sorted(folder.glob("state-*"))


def load_newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Return (folder, state, messages about damaged newer states) of the newest whole state, or None."""
    messages: list[str] = []
    for candidate in reversed(states(folder)):
        try:
            state = json.loads((candidate / "state.json").read_text())
            damaged = [name for name, sha in state["sha256"].items() if sha256_file(candidate / name) != sha]
        except (OSError, ValueError, KeyError) as error:
            damaged, state = [f"state.json ({type(error).__name__})"], {}
        if not damaged:
            return candidate, state, messages
        messages.append(f"{candidate.name} is damaged ({', '.join(damaged)}): falling back to the state before it")
        shutil.rmtree(candidate, ignore_errors=True)
    return (folder, {}, messages) if messages else None


def restore_state(
    folder: Path, state: dict[str, Any], model: "torch.nn.Module", optimizer: "torch.optim.Optimizer"
) -> None:
    """Put model, optimizer and RNGs back to a saved state."""
    from safetensors.torch import load_file

    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    tied = set(getattr(model, "_tied_weights_keys", None) or {})
    if unexpected or set(missing) - tied:
        raise UserError(f"the state in {folder} is of another model: delete the folder to start over")
    restore_optimizer(optimizer, load_file(folder / "optimizer.safetensors"), state["groups"])
    restore_rng(state["rng"])
