"""Taking norm parameters away in the families of the paper: which norms, and what the model then computes."""

import copy

import pytest
import torch
from norm_models import PAPERS, batch, randomize, tiny

from memorization.models.norms import WHICH, find_norms, select_norms, strip_norm_parameters

LAYERS = 6
POST = ["bert", "deberta", "distilbert", "electra", "longformer", "roberta"]
OUTSIDE = {name: ["embedding"] if name in POST else ["final"] for name in PAPERS}
OUTSIDE["roberta_prelayernorm"] = ["embedding", "final"]
FIRST_LAYER = {
    "distilbert": ["sa_layer_norm", "output_layer_norm"],
    "roberta_prelayernorm": ["attention.", "intermediate."],
    "gpt_neo": ["ln_1", "ln_2"],
    "gpt2": ["ln_1", "ln_2"],
    "qwen2": ["input_layernorm", "post_attention_layernorm"],
    **{name: ["attention.output.", "output."] for name in ("bert", "deberta", "electra", "longformer", "roberta")},
    **{name: ["layernorm_before", "layernorm_after"] for name in ("vit", "deit", "vit_msn")},
}
THIRD = {"early": (0, 1), "middle": (2, 3), "late": (4, 5)}


def expected(name: str, which: str) -> dict[tuple[int, str], int]:
    sides = ["attention", "feed_forward"]
    if which == "none":
        return {}
    if which == "all":
        return expected(name, "attention") | expected(name, "feed_forward") | {(-1, r): 1 for r in OUTSIDE[name]}
    layers = THIRD.get(which, range(LAYERS))
    return {(layer, side): 1 for layer in layers for side in ([which] if which in sides else sides)}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch(model)).logits


def by_hand(model: torch.nn.Module, names: set[str]) -> torch.Tensor:
    """Logits with the parameters of these norms replaced by name."""
    fixed = {}
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        if owner in names:
            fixed[name] = torch.ones_like(parameter) if kind == "weight" else torch.zeros_like(parameter)
    with torch.no_grad():
        return torch.func.functional_call(model, fixed, (), batch(model)).logits


@pytest.mark.parametrize("name", PAPERS)
def test_stripping_in_the_families_of_the_paper(name):
    """For every choice: counts, the same logits as with weights set by hand, finite forward and backward.

    A fresh model, whose gains are 1 and biases 0, gives the same logits as before.
    """
    fresh = tiny(name, LAYERS)
    moved = copy.deepcopy(fresh)
    randomize(moved)
    norms = find_norms(fresh)
    first = [norm for norm in norms if norm.layer == 0]
    prefix = FIRST_LAYER[name]
    assert [norm.role for norm in first] == ["attention", "feed_forward"]
    assert all(start in norm.name for norm, start in zip(first, prefix, strict=True))
    assert "attention" not in first[1].name.replace("post_attention", "")
    before_fresh, before_moved = logits(fresh), logits(moved)
    for which in WHICH:
        model = copy.deepcopy(moved)
        report = strip_norm_parameters(model, which)
        assert report.counts == expected(name, which)
        assert report.which == which and len(report.names) == sum(report.counts.values())
        after = logits(model)
        per_norm = 16 if name == "qwen2" else 32
        embedding = 16 if name == "electra" else per_norm  # of embedding_size 8
        outside = [n for n in norms if n.layer is None and n.name in report.names]
        sizes = sum(embedding if n.role == "embedding" else per_norm for n in outside)
        assert report.parameters == sizes + per_norm * (len(report.names) - len(outside))
        assert torch.equal(after, by_hand(moved, set(report.names)))
        assert torch.equal(after, before_moved) == (which == "none")
        model(**batch(model)).logits.square().sum().backward()
        fixed = {f"{norm}.{kind}" for norm in report.names for kind in ("weight", "bias")}
        for parameter_name, parameter in model.named_parameters():
            assert parameter.requires_grad == (parameter_name not in fixed)
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()
        assert all(
            model.get_parameter(f"{n.name}.weight").grad is not None for n in norms if n.name not in report.names
        )
    strip_norm_parameters(fresh, "all")
    assert torch.equal(logits(fresh), before_fresh)


@pytest.mark.parametrize("layers", [3, 4, 5, 7, 8, 12])
def test_thirds_partition_the_layers(layers):
    """Hand values: earlier thirds get one more when 3 does not divide the number of layers."""
    sizes = {3: (1, 1, 1), 4: (2, 1, 1), 5: (2, 2, 1), 7: (3, 2, 2), 8: (3, 3, 2), 12: (4, 4, 4)}[layers]
    model = tiny("bert", layers)
    thirds = [sorted({norm.layer for norm in select_norms(model, which)}) for which in ("early", "middle", "late")]
    assert tuple(map(len, thirds)) == sizes
    assert [layer for third in thirds for layer in third] == list(range(layers))


def test_stripped_norms_still_normalize():
    """Unlike a norm that is taken out: outputs have mean 0 and variance 1."""
    model = tiny("bert", 2)
    randomize(model)
    strip_norm_parameters(model, "all")
    last = find_norms(model)[-1].module
    out = last(torch.randn(5, 7, 16, generator=torch.Generator().manual_seed(0)) * 3 + 2)
    assert torch.allclose(out.mean(-1), torch.zeros(5, 7), atol=1e-5)
    assert torch.allclose(out.var(-1, unbiased=False), torch.ones(5, 7), atol=1e-4)


def test_training_does_not_move_stripped_parameters():
    model = tiny("bert", 3).train()
    report = strip_norm_parameters(model, "early")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model(**batch(model)).logits.square().sum().backward()
    optimizer.step()
    for norm in find_norms(model):
        still = bool((norm.module.weight == 1).all()) and bool((norm.module.bias == 0).all())
        assert still == (norm.name in report.names)
