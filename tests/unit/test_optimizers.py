"""Optimizers: the same steps as torch's own, parameter by parameter, and a state that survives the disk."""

import json

import pytest
import torch
from norm_models import tiny
from safetensors.torch import load_file, save_file

from memorization.models.build import build
from memorization.models.norms import strip_norm_parameters
from memorization.specs import OptimizerSpec
from memorization.training.checkpoint import flatten_optimizer, restore_optimizer
from memorization.training.optimizers import layer_matrices, make_optimizer, norm_parameters, set_learning_rate
from tiny_labelled import text_model, vision_model

SPEC = {"learning_rate": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.03}
LAYER = {  # matrices of one layer, written down from the papers' block diagrams, not found by code
    "gpt2": ("transformer.h.{}.", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "openai_gpt": ("transformer.h.{}.", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "vit": (
        "vit.layers.{}.",
        ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"],
    ),
    "bert": (
        "bert.encoder.layer.{}.",
        ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
        + ["intermediate.dense", "output.dense"],
    ),
}


def fresh(name: str) -> torch.nn.Module:
    """A model of three layers in double precision, always with the same weights."""
    if name == "bert":
        return tiny("bert", 3).double()
    return build(vision_model() if name == "vit" else text_model(name), seed=1).double()


def made(spec: OptimizerSpec, model: torch.nn.Module) -> torch.optim.Optimizer:
    """An optimizer with its learning rate set as training does before every step."""
    optimizer = make_optimizer(spec, model)
    set_learning_rate(optimizer, spec.learning_rate)
    return optimizer


def matrices(name: str) -> set[str]:
    prefix, inside = LAYER[name]
    return {f"{prefix.format(layer)}{one}.weight" for layer in range(3) for one in inside}


def norms(model: torch.nn.Module) -> set[str]:
    return {
        f"{name}.{one}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        for one in ("weight", "bias")
    }


def give_gradients(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():  # drawn for all, so that frozen ones do not shift the others
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.grad = drawn if parameter.requires_grad else None


def steps(model: torch.nn.Module, *optimizers: torch.optim.Optimizer, number: int = 2, first: int = 0) -> None:
    for seed in range(first, first + number):
        give_gradients(model, seed)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def changes(model: torch.nn.Module, before: torch.nn.Module) -> dict[str, torch.Tensor]:
    old = dict(before.named_parameters())
    return {name: (p - old[name]).detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("name", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_steps_are_torchs(name, reference):
    ours, theirs = fresh("gpt2"), fresh("gpt2")
    steps(ours, made(OptimizerSpec(name=name, **SPEC), ours))
    steps(theirs, reference(theirs.parameters(), lr=0.02, betas=(0.8, 0.9), weight_decay=0.03, fused=True))
    assert same(ours, theirs) and not same(ours, fresh("gpt2"))


@pytest.mark.parametrize("name", sorted(LAYER))
def test_norm_rate_is_a_factor_of_the_steps_of_gains_and_biases_alone(name):
    plain, fast = fresh(name), fresh(name)
    steps(plain, made(OptimizerSpec(name="adamw", **SPEC), plain), number=1)
    steps(fast, made(OptimizerSpec(name="adamw", **SPEC, norm_rate=7.0), fast), number=1)
    wanted, got, quick = changes(plain, fresh(name)), changes(fast, fresh(name)), norms(plain)
    assert len(quick) >= 12 and norm_parameters(plain) == quick
    for parameter in wanted:
        factor = 7.0 if parameter in quick else 1.0
        torch.testing.assert_close(got[parameter], factor * wanted[parameter], rtol=1e-9, atol=1e-13)
        assert wanted[parameter].any()


def test_stripped_norms_are_left_alone_and_the_others_keep_their_factor():
    model, whole = fresh("gpt2"), fresh("gpt2")
    report = strip_norm_parameters(model, "middle")
    fixed = {f"{norm}.{one}" for norm in report.names for one in ("weight", "bias")}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    spec = OptimizerSpec(name="adamw", **SPEC, norm_rate=7.0)
    optimizer = made(spec, model)
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for name, p in model.named_parameters() if name not in fixed} and len(fixed) == 4
    steps(model, optimizer, number=1)
    steps(whole, made(spec, whole), number=1)
    wanted = changes(whole, fresh("gpt2"))
    for name, parameter in model.named_parameters():
        moved = parameter - before[name]
        assert not moved.any() if name in fixed else torch.equal(moved, wanted[name])


@pytest.mark.parametrize("name", sorted(LAYER))
def test_muon_takes_the_matrices_inside_the_layers_and_adamw_the_rest(name):
    ours, theirs = fresh(name), fresh(name)
    chosen = matrices(name)
    assert layer_matrices(ours) == chosen
    steps(ours, made(OptimizerSpec(name="muon", **SPEC), ours))
    named = dict(theirs.named_parameters())
    assert chosen <= set(named)
    muon = torch.optim.Muon(
        [named[one] for one in chosen], lr=0.02, weight_decay=0.03, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    rest = [p for one, p in named.items() if one not in chosen]
    steps(theirs, muon, torch.optim.AdamW(rest, lr=0.02, betas=(0.8, 0.9), weight_decay=0.03, fused=True))
    assert same(ours, theirs)


def test_muons_steps_are_orthogonal_and_of_the_size_of_adamws():
    """By its definition: singular values near 1 (0.7 to 1.2) times 0.2 * rate * sqrt(longer side)."""
    model = fresh("gpt2")
    steps(model, made(OptimizerSpec(name="muon", learning_rate=0.02), model), number=1)
    moved = changes(model, fresh("gpt2"))
    for name in matrices("gpt2"):
        singular = torch.linalg.svdvals(moved[name]) / (0.2 * 0.02 * max(moved[name].shape) ** 0.5)
        assert singular.min() > 0.6 and singular.max() < 1.3, name
        assert moved[name].square().mean().sqrt() == pytest.approx(0.2 * 0.02, rel=0.2)
    assert moved["transformer.wte.weight"].abs().mean() == pytest.approx(0.02, rel=1e-3)  # Adam's first step


def test_muon_with_stripped_norms_and_a_factor_for_the_others():
    model = fresh("openai_gpt")
    strip_norm_parameters(model, "early")
    optimizer = made(OptimizerSpec(name="muon", **SPEC, norm_rate=3.0), model)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [{names[id(p)] for p in group["params"]} for group in optimizer.param_groups]
    assert [group["rate"] for group in optimizer.param_groups] == [1.0, 1.0, 3.0]
    left = {name for name in norms(model) if ".h.0." not in name}
    assert groups[0] == matrices("openai_gpt") and groups[2] == left and len(left) == 8
    assert set.union(*groups) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum(map(len, groups)) == len(set.union(*groups))


SPECS = {
    "adam": OptimizerSpec(name="adam", **SPEC),
    "adamw": OptimizerSpec(name="adamw", **SPEC, norm_rate=5.0),
    "muon": OptimizerSpec(name="muon", **SPEC, norm_rate=5.0),
}


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_state_from_disk_continues_to_the_same_weights(name, tmp_path):
    """Written as training writes it; the learning rate changes after the state was read."""
    spec, whole, first = SPECS[name], fresh("gpt2"), fresh("gpt2")
    optimizer = made(spec, whole)
    steps(whole, optimizer, number=2)
    set_learning_rate(optimizer, 0.005)
    steps(whole, optimizer, number=2, first=2)

    optimizer = made(spec, first)
    steps(first, optimizer, number=2)
    tensors, groups = flatten_optimizer(optimizer)
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "state")
    again = fresh("gpt2")
    again.load_state_dict(first.state_dict())
    optimizer = made(spec, again)
    restore_optimizer(optimizer, load_file(tmp_path / "state"), json.loads(json.dumps(groups)))
    set_learning_rate(optimizer, 0.005)
    steps(again, optimizer, number=2, first=2)
    assert same(whole, again)


def test_a_muon_state_has_an_entry_of_every_parameter():
    model = fresh("gpt2")
    optimizer = made(SPECS["muon"], model)
    steps(model, optimizer, number=1)
    tensors, groups = flatten_optimizer(optimizer)
    momenta = {key.split(".")[0] for key in tensors if key.endswith("momentum_buffer")}
    adam = {key.split(".")[0] for key in tensors if key.endswith("exp_avg_sq")}
    assert len(momenta) == 12 and not momenta & adam
    assert len(momenta | adam) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_learning_rate_reaches_every_group_with_its_factor(name):
    """By what a step does: with rate 0 nothing moves; after a change steps are those of an optimizer made so."""
    spec, model = SPECS[name], fresh("vit")
    optimizer = made(spec, model)
    set_learning_rate(optimizer, 0.0)
    steps(model, optimizer, number=1)
    assert same(model, fresh("vit"))
    made_so = fresh("vit")
    other = made(spec.model_copy(update={"learning_rate": 0.003}), made_so)
    model = fresh("vit")
    optimizer = made(spec, model)
    set_learning_rate(optimizer, 0.003)
    steps(model, optimizer), steps(made_so, other)
    assert same(model, made_so) and not same(model, fresh("vit"))
