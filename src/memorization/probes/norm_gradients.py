"""Gradient of the loss with respect to the inputs of norms, for every item by one backward a batch (`layernorm`, 3.3).

Items of a batch do not influence each other in evaluation mode, so the gradient of the sum of their losses holds in its
rows the gradient of every item's own loss.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import UserError
from memorization.models.norms import Norm, find_norms

if TYPE_CHECKING:
    import torch

PerItemLoss = Callable[[Any, Mapping[str, Any]], "torch.Tensor"]


@dataclass
class NormGradients:
    """Gradients at the inputs of K norms over N items.

    names, layers, roles: (K,) of the norms. Arrays are float64.
    per_item: (N, K) L2 norm over tokens and features of dL/dx, x being the tensor the norm reads. The text's definition
        is its mean over items, `text`. In a Pre-LN model x is the residual stream: what flows past the norm counts too.
    through_norm: (N, K) the same of what flows through the norm alone, which is what a backward hook on it sees. Equal
        to `per_item` where nothing else reads x (Post-LN).
    code: (K,) the released code's quantity: |gradient through the norm| averaged over tokens, that vector averaged over
        items, then its L2 norm.
    """

    names: list[str]
    layers: list[int | None]
    roles: list[str]
    per_item: np.ndarray
    through_norm: np.ndarray
    code: np.ndarray

    @property
    def text(self) -> np.ndarray:
        """(K,) mean over items of the per-item norm."""
        return self.per_item.mean(0)


def norm_input_gradients(
    model: "torch.nn.Module",
    batches: Iterable[Mapping[str, Any]],
    per_item_loss: PerItemLoss,
    norms: Sequence[Norm] | None = None,
) -> NormGradients:
    """Measure gradients at the inputs of norms, items in the order of `batches`.

    batches: mappings of tensors, items first, on the model's device; whatever the loss takes. With an `attention_mask`
        (B, T), padded positions do not count in the token average of `code` (positions a model adds at the end, as
        Longformer does, count as padding). The released code averages over all 512 positions; where gradients at
        padding are 0, its values are smaller by about the share of real tokens.
    per_item_loss: (model, batch) -> (B,) loss of each item.
    norms: default the norms of the layers. They must read items first, (B, ..., d), or all positions flattened.

    The model is measured in evaluation mode. Parameters may be frozen, all of them; modes, `requires_grad` and `.grad`
    are left as they were. Raises UserError for a loss of another shape, without batches or norms, and for a norm that
    is not used exactly once a pass.
    """
    import torch

    chosen = [norm for norm in find_norms(model) if norm.layer is not None] if norms is None else list(norms)
    if not chosen:
        raise UserError(
            f"{type(model).__name__} has no norms in its layers: give `norms`, for instance of `find_norms`"
        )
    modes = [(module, module.training) for module in model.modules()]
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    hooks = [norm.module.register_forward_pre_hook(_watch(norm.name, seen), with_kwargs=True) for norm in chosen]
    total: list[torch.Tensor] = []
    through: list[torch.Tensor] = []
    vectors: list[Any] = [0.0] * len(chosen)
    try:
        model.eval()
        for parameter in frozen:  # else inputs that depend on frozen parameters alone would have no gradient
            parameter.requires_grad_(True)
        for batch in batches:
            seen.clear()
            with torch.enable_grad():
                loss = per_item_loss(model, batch)
                if loss.ndim != 1:
                    raise UserError(
                        f"the loss has shape {tuple(loss.shape)}: return one loss an item, without reduction"
                    )
                if not loss.requires_grad:
                    raise UserError("the loss carries no gradient: compute it without `no_grad` and do not detach it")
                missing = [norm.name for norm in chosen if norm.name not in seen]
                if missing:
                    raise UserError(f"norm {missing[0]} was not used by the loss: leave it out of `norms`")
                inputs = [tensor for norm in chosen for tensor in seen[norm.name]]
                # by `grad`, not `backward`: no gradient of a parameter is computed or stored
                gradients = torch.autograd.grad(loss.sum(), inputs, allow_unused=True, materialize_grads=True)
            by_item = [_items_first(g, len(loss), chosen[i // 2].name) for i, g in enumerate(gradients)]
            lengths = torch.stack([g.flatten(1).norm(dim=1).cpu() for g in by_item], dim=1)
            total.append(lengths[:, ::2])
            through.append(lengths[:, 1::2])
            mask = batch.get("attention_mask")
            for number, g in enumerate(by_item[1::2]):
                vectors[number] = vectors[number] + _token_mean(g.abs(), mask, chosen[number].name).sum(0)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, training in modes:
            module.training = training
    if not total:
        raise UserError("there are no items to measure gradients of: give at least one batch")
    per_item = torch.cat(total).numpy()
    code = np.array([float((vector / len(per_item)).norm()) for vector in vectors])
    names, layers, roles = zip(*((norm.name, norm.layer, str(norm.role)) for norm in chosen), strict=True)
    return NormGradients(list(names), list(layers), list(roles), per_item, torch.cat(through).numpy(), code)


def _watch(name: str, seen: dict[str, tuple["torch.Tensor", "torch.Tensor"]]) -> Callable[..., Any]:
    """A hook that keeps a norm's input, and an alias of it which the norm alone reads."""
    import torch

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if name in seen:
            raise UserError(f"norm {name} is used more than once a pass: leave it out of `norms`")
        key = None if args else next(key for key, value in kwargs.items() if isinstance(value, torch.Tensor))
        x = args[0] if key is None else kwargs[key]
        alias = x.view_as(x)
        seen[name] = (x, alias)
        return ((alias, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: alias})

    return hook


def _items_first(gradient: "torch.Tensor", items: int, name: str) -> "torch.Tensor":
    """(items, ..., d) float64; inputs that were flattened to (items * positions, d) are folded back."""
    if gradient.ndim == 2 and gradient.shape[0] % items == 0:
        gradient = gradient.reshape(items, -1, gradient.shape[-1])
    if gradient.shape[0] != items:
        raise UserError(f"norm {name} reads a tensor of shape {tuple(gradient.shape)} for {items} items: "
                        "leave it out of `norms`, items must come first")  # fmt: skip
    return gradient.double()


def _token_mean(values: "torch.Tensor", mask: Any, name: str) -> "torch.Tensor":
    """(items, d) mean over positions, of the real ones where there is a mask (items, positions)."""
    import torch

    if mask is None or values.ndim < 3:
        return values.flatten(1, -2).mean(1)
    if values.ndim > 3:  # norms of queries and keys: heads stand before or after the positions
        axis = next((axis for axis in range(1, values.ndim - 1) if values.shape[axis] == mask.shape[1]), 1)
        values = values.movedim(axis, 1).flatten(2, -2).mean(2)
    extra = values.shape[1] - mask.shape[1]
    if extra < 0:
        raise UserError(f"norm {name} reads {values.shape[1]} positions and the attention mask has {mask.shape[1]}: "
                        "leave the norm out of `norms`, or the mask out of the batch")  # fmt: skip
    weights = torch.nn.functional.pad(mask.to(values), (0, extra))
    return (values * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
