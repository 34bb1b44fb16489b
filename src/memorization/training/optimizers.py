"""Optimizers of a run: Adam, AdamW, or Muon with AdamW, with a learning-rate factor for norms."""

from typing import TYPE_CHECKING, Any

import torch

from memorization.specs import OptimizerSpec

if TYPE_CHECKING:
    from collections.abc import Callable


def make_optimizer(spec: OptimizerSpec, model: Any) -> torch.optim.Optimizer:
    """Optimizer over the trainable parameters of a model; Adam(W) is fused: one kernel for all of them, on CPU and GPU.

    Parameter groups have a key `rate`, a factor of the learning rate, which `set_learning_rate` heeds.
    """
    kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    options: dict[str, Any] = {
        "lr": spec.learning_rate,
        "betas": spec.betas,
        "weight_decay": spec.weight_decay,
        "fused": True,
    }
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    norms = norm_parameters(model) if spec.norm_rate != 1 else set()
    matrices = layer_matrices(model) if spec.name == "muon" else set()
    groups = [
        {"params": [p for name, p in trainable.items() if name not in norms | matrices], "rate": 1.0},
        {"params": [p for name, p in trainable.items() if name in norms], "rate": spec.norm_rate},
    ]
    rest = kind([group for group in groups if group["params"]], **options)
    if spec.name != "muon":
        return rest
    muon = torch.optim.Muon(
        [{"params": [p for name, p in trainable.items() if name in matrices], "rate": 1.0}],
        lr=spec.learning_rate,
        weight_decay=spec.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Pair(muon, rest)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate", 1.0)


def norm_parameters(model: Any) -> set[str]:
    """Names of the gains and biases of all norms."""
    from memorization.models.norms import find_norms

    return {f"{norm.name}.{name}" for norm in find_norms(model) for name, _ in norm.module.named_parameters()}


def layer_matrices(model: Any) -> set[str]:
    """Names of the weight matrices inside the layers: no embedding and no head, for which Muon is not meant."""
    stacks = [
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) and any(p.ndim == 2 for p in module.parameters())
    ]
    return {
        name
        for name, p in model.named_parameters()
        if p.ndim == 2 and p.requires_grad and any(name.startswith(stack) for stack in stacks)
    }


class Pair(torch.optim.Optimizer):
    """Two optimizers over different parameters that step together and save one state."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.pair = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        # the same objects, so that a learning rate set here is set there
        self.param_groups = [*first.param_groups, *second.param_groups]

    def step(self, closure: "Callable[[], float] | None" = None) -> None:  # type: ignore[override]
        """Update all parameters."""
        for one in self.pair:
            one.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for one in self.pair:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """State of both; parameters of the second are numbered on from those of the first."""
        first, second = (one.state_dict() for one in self.pair)
        shift = sum(len(group["params"]) for group in first["param_groups"])
        moved = [{**group, "params": [k + shift for k in group["params"]]} for group in second["param_groups"]]
        state = {**first["state"], **{k + shift: value for k, value in second["state"].items()}}
        return {"state": state, "param_groups": [*first["param_groups"], *moved]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        groups = len(self.pair[0].param_groups)
        mine = state_dict["param_groups"][:groups], state_dict["param_groups"][groups:]
        shift = sum(len(group["params"]) for group in mine[0])
        for one, saved, offset in zip(self.pair, mine, (0, shift), strict=True):
            numbers = {k for group in saved for k in group["params"]}
            one.load_state_dict(
                {
                    "state": {k - offset: value for k, value in state_dict["state"].items() if k in numbers},
                    "param_groups": [{**group, "params": [k - offset for k in group["params"]]} for group in saved],
                }
            )
        self.param_groups = [*self.pair[0].param_groups, *self.pair[1].param_groups]
