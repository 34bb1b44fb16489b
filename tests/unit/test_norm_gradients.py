"""Gradients at the inputs of norms: all items by one backward against a loop over items."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from norm_models import CLASSES, batch, randomize, tiny

from memorization.errors import UserError
from memorization.models.norms import find_norms, strip_norm_parameters
from memorization.probes.norm_gradients import norm_input_gradients


def loss(model, items):
    inputs = {name: value for name, value in items.items() if name != "labels"}
    return F.cross_entropy(model(**inputs).logits, items["labels"], reduction="none")


def prepared(name: str, layers: int = 2) -> torch.nn.Module:
    model = tiny(name, layers).double()
    randomize(model)
    return model


def labelled(model: torch.nn.Module, items: int = 5, *, padded: bool = False) -> dict[str, torch.Tensor]:
    made = batch(model, items)
    if padded:  # on the right, lengths 8, 7, 6, ... with the padding token 0
        for row in range(items):
            made["input_ids"][row, 8 - row :] = 0
            made["attention_mask"][row, 8 - row :] = 0
    made = {name: value.double() if value.is_floating_point() else value for name, value in made.items()}
    return made | {"labels": torch.arange(items) % CLASSES}


def rows(items: dict[str, torch.Tensor], start: int, stop: int) -> dict[str, torch.Tensor]:
    return {name: value[start:stop] for name, value in items.items()}


def brute_force(model, items):
    """Per item: |dL/dx| at each norm of the layers by `retain_grad`, and what a backward hook on the norm sees."""
    norms = [norm.module for norm in find_norms(model) if norm.layer is not None]
    total, through = [], []
    for row in range(len(items["labels"])):
        inputs, seen = {}, {}
        hooks = []
        for number, module in enumerate(norms):

            def keep(_, args, number=number, inputs=inputs):
                args[0].retain_grad()
                inputs[number] = args[0]

            def look(_, given, __, number=number, seen=seen):
                seen[number] = given[0]

            hooks += [module.register_forward_pre_hook(keep), module.register_full_backward_hook(look)]
        one = rows(items, row, row + 1)
        loss(model, one)[0].backward()
        for hook in hooks:
            hook.remove()
        model.zero_grad()
        # a forward pre-hook of a module with a backward hook sees the tensor before it is wrapped
        total.append([inputs[n].grad[0] if inputs[n].grad.ndim == 3 else inputs[n].grad for n in range(len(norms))])
        through.append([seen[n].reshape(-1, seen[n].shape[-1]) for n in range(len(norms))])
    return total, through


def lengths(gradients) -> np.ndarray:
    return np.array([[float(g.norm()) for g in item] for item in gradients])


@pytest.mark.parametrize("name", ["bert", "roberta_prelayernorm", "vit", "gpt2", "deberta", "qwen2", "opt"])
def test_one_backward_agrees_with_a_loop_over_items(name):
    model = prepared(name)
    items = labelled(model)
    found = norm_input_gradients(model, [rows(items, 0, 3), rows(items, 3, 5)], loss)
    total, through = brute_force(model, items)
    assert found.per_item.shape == (5, 4) and found.per_item.dtype == np.float64
    np.testing.assert_allclose(found.per_item, lengths(total), rtol=1e-6)
    np.testing.assert_allclose(found.through_norm, lengths(through), rtol=1e-6)
    code = [torch.stack([item[n].abs().mean(0) for item in through]).mean(0).norm() for n in range(4)]
    np.testing.assert_allclose(found.code, np.array(code), rtol=1e-6)
    np.testing.assert_allclose(found.text, lengths(total).mean(0), rtol=1e-6)
    assert found.layers == [0, 0, 1, 1] and found.roles == ["attention", "feed_forward"] * 2
    assert found.names == [norm.name for norm in find_norms(model) if norm.layer is not None]


@pytest.mark.parametrize(("name", "same"), [("bert", True), ("roberta_prelayernorm", False)])
def test_only_in_a_pre_ln_model_gradient_flows_past_the_norm(name, same):
    model = prepared(name)
    found = norm_input_gradients(model, [labelled(model)], loss)
    assert np.allclose(found.per_item, found.through_norm) == same


@pytest.mark.parametrize("name", ["bert", "roberta_prelayernorm", "longformer", "qwen2"])
def test_items_do_not_depend_on_their_batch_nor_on_padding(name):
    """Padded together, or alone without padding: the same numbers; of `code` too, whose mean is over real tokens."""
    model = prepared(name)
    items = labelled(model, padded=True)
    together = norm_input_gradients(model, [items], loss)
    alone = []
    for row in range(5):
        one = rows(items, row, row + 1)
        real = int(one["attention_mask"].sum())
        alone.append({k: v[:, :real] if v.ndim == 2 else v for k, v in one.items()})
    apart = norm_input_gradients(model, alone, loss)
    np.testing.assert_allclose(together.per_item, apart.per_item, rtol=1e-6)
    np.testing.assert_allclose(together.code, apart.code, rtol=1e-6)


def test_a_model_is_left_as_it_was():
    """Dropout is off while measuring; modes (mixed ones too), requires_grad, .grad and hooks are restored."""
    model = prepared("bert")
    items = labelled(model)
    calm = norm_input_gradients(model, [items], loss)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.bert.encoder.layer[1].eval()
    strip_norm_parameters(model, "none")
    model.bert.embeddings.requires_grad_(False)
    kept = model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():
        again = norm_input_gradients(model, [items], loss)
    np.testing.assert_array_equal(again.per_item, calm.per_item)
    assert [module.training for module in model.modules()] == modes and len(set(modes)) == 2
    assert [parameter.requires_grad for parameter in model.parameters()] == flags and len(set(flags)) == 2
    assert model.classifier.weight.grad is kept and bool((kept == 1).all())
    assert all(p.grad is None for p in model.parameters() if p is not model.classifier.weight)
    assert not any(norm.module._forward_pre_hooks for norm in find_norms(model))


@pytest.mark.parametrize("name", ["roberta_prelayernorm", "gpt2", "vit"])
def test_frozen_parameters_change_no_gradient(name):
    """In a Pre-LN model the first norm then reads something that needs no gradient, and so does the residual stream."""
    model = prepared(name)
    items = labelled(model)
    expected = norm_input_gradients(model, [items], loss)
    model.requires_grad_(False)
    found = norm_input_gradients(model, [items], loss)
    np.testing.assert_allclose(found.per_item, expected.per_item)
    np.testing.assert_allclose(found.code, expected.code)
    assert not any(parameter.requires_grad for parameter in model.parameters())


class Keyword(torch.nn.Module):
    """A stack of one norm that gets its input by keyword and after another argument."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)
        self.norm = torch.nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(input=self.inner(x)).square().sum((1, 2))


def test_an_input_passed_by_keyword_and_chosen_norms():
    torch.manual_seed(0)
    model = Keyword().double()
    randomize(model)
    x = torch.randn(3, 2, 4).double()
    found = norm_input_gradients(model, [{"x": x}], lambda model, items: model(items["x"]), find_norms(model))
    for row in range(3):
        inner = model.inner(x[row]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.norm(inner).square().sum(), inner)
        assert found.per_item[row, 0] == pytest.approx(float(gradient.norm()), rel=1e-6)
    assert found.layers == [None] and found.names == ["norm"]


def test_norms_of_queries_and_keys_count_positions_by_the_mask():
    """Gemma 3 normalizes (items, heads, positions, d); a longer padding changes nothing."""
    model = prepared("gemma3")
    ids = torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(0))

    def last_token(model, items):
        logits = model(input_ids=items["input_ids"], attention_mask=items["attention_mask"]).logits
        return F.cross_entropy(logits[:, 5], items["input_ids"][:, 0], reduction="none")

    def padded(extra: int) -> dict[str, torch.Tensor]:
        return {"input_ids": F.pad(ids, (0, extra)), "attention_mask": F.pad(torch.ones_like(ids), (0, extra))}

    one, other = (norm_input_gradients(model, [padded(extra)], last_token) for extra in (0, 5))
    assert len(one.code) == 2 * 6
    np.testing.assert_allclose(one.code, other.code, rtol=1e-6)
    np.testing.assert_allclose(one.per_item, other.per_item, rtol=1e-6)


def test_bad_input_says_what_to_write_and_leaves_no_hook():
    model = prepared("bert")
    items = labelled(model)
    embedding = find_norms(model)[0]

    def detached(model, items):
        return loss(model, items).detach()

    def twice(model, items):
        return loss(model, items) + loss(model, items)

    albert = prepared("albert")
    cases = [
        (lambda: norm_input_gradients(model, [items], lambda *a: loss(*a).mean()), "without reduction"),
        (lambda: norm_input_gradients(model, [items], detached), "carries no gradient"),
        (lambda: norm_input_gradients(model, [items], twice), "more than once"),
        (lambda: norm_input_gradients(model, [], loss), "at least one batch"),
        (lambda: norm_input_gradients(albert, [labelled(albert)], loss), "no norms in its layers"),
        (
            lambda: norm_input_gradients(model, [items], lambda m, i: m.classifier.weight.sum(1)[:3], [embedding]),
            "was not used by the loss",
        ),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
    assert not any(norm.module._forward_pre_hooks for norm in find_norms(model))
