"""Find the norms of any `transformers` model and take their parameters away (`layernorm`, section 3.2).

"Removing" a norm means what the paper means: its gain becomes 1, its bias 0, and both stay so. The normalization itself
is kept. Norms are recognised by their class, since attribute names differ from family to family.
"""

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from memorization.errors import UserError

if TYPE_CHECKING:
    import torch

Which = Literal["none", "all", "early", "middle", "late", "attention", "feed_forward"]
Role = Literal["attention", "feed_forward", "embedding", "final", "head", "other"]
WHICH: tuple[Which, ...] = get_args(Which)
THIRDS = ("early", "middle", "late")
SIDES = ("attention", "feed_forward")
OUTSIDE = -1  # the layer of norms outside the layers, in counts and rows

# names under which configurations give the number of layers
COUNTS = ["num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"]
COUNTS += ["num_encoder_layers", "num_decoder_layers"]

# modules around a norm within its layer: attribute name and class name
IN_ATTENTION = re.compile(r"(?i:attention|attn)")
IN_FEED_FORWARD = re.compile(r"(?i:feed_?forward|mlp|ffn|intermediate|experts?)|\bff\b|FF\b")
# a norm's own attribute name
POST_ATTENTION = re.compile(r"post_?(attention|attn)")
PRE_FEED_FORWARD = re.compile(r"pre_?(feed|ff|mlp)")
OWN_ATTENTION = re.compile(r"(?i)att|^sa_|^input|before")
OWN_FEED_FORWARD = re.compile(r"(?i)feed_?forward|ff|mlp|^fc|after|^final|^output")
HEADS_NORM = re.compile(r"(?i)^(q|k|v|query|key|value)_?(layer_?)?norm")
OWN_FINAL = re.compile(r"(?i)final|ln_f|norm_f")


@dataclass
class Norm:
    """One LayerNorm or RMSNorm: its name in the model, the module, the layer it stands in (None outside) and its role.

    role: `attention` or `feed_forward` in a layer; outside `embedding` (before the layers), `final` (after them) or
    `head` (in the head of a language model); `other` only where the layers cannot be found (ALBERT, which shares one).
    """

    name: str
    module: "torch.nn.Module"
    layer: int | None
    role: Role


@dataclass
class StripReport:
    """What was stripped: names, {(layer, role): norms} with layer -1 outside the layers, number of scalars fixed."""

    which: str
    names: list[str] = field(default_factory=list)
    counts: dict[tuple[int, str], int] = field(default_factory=dict)
    parameters: int = 0


def find_norms(model: "torch.nn.Module") -> list[Norm]:
    """Every norm of a `transformers` model, in the order of its modules.

    A norm is a torch LayerNorm or RMSNorm, or a module whose class name ends so and that has a weight of one dimension
    (DebertaLayerNorm, Qwen2RMSNorm, T5LayerNorm, ...). The layers are the outermost ModuleList that is as long as the
    configuration says and holds norms.

    Role in a layer, by names of the norm and of the modules around it, and by order where names do not tell:

    * `post_attention_layernorm` is the feed-forward norm where the block has an input norm and no norm named for the
      input of its feed-forward net (Llama, Qwen2, GPT-NeoX), else the norm of attention's output (Gemma 2 and 3,
      OLMo 2);
    * norms of queries and keys belong to attention, `pre_` and `post_feedforward_layernorm` to feed-forward;
    * a single norm that feeds attention and a parallel feed-forward net (GPT-J, Phi) counts as attention;
    * norms that nothing names: the first half is attention's (ln_1), the rest feed-forward's (ln_2).

    An encoder-decoder model has its layers counted through, the encoder's first: with 6 and 6, decoder layers are 6 to
    11; norms of cross-attention are `attention`. Raises UserError for other models of several stacks (CLIP).
    """
    import torch

    modules = list(model.named_modules())
    found = {name: module for name, module in modules if _is_norm(module)}
    stacks = _stacks(model, modules, list(found))
    place = {name: number for number, (name, _) in enumerate(modules)}
    base = getattr(model, "base_model", model)
    base = base if isinstance(base, torch.nn.Module) else model
    in_base = {id(module) for module in base.modules()}

    layers: dict[str, int] = {}
    roles: dict[str, Role] = {}
    first = 0
    for stack, blocks in stacks:
        for number, block in enumerate(blocks):
            prefix = f"{stack}.{number}."
            inside = [name for name in found if name.startswith(prefix)]
            layers |= dict.fromkeys(inside, first + number)
            inner = _roles_in_layer(block, [name[len(prefix) :] for name in inside])
            roles |= {prefix + path: role for path, role in inner.items()}
        first += len(blocks)
    for name, module in found.items():
        if name not in roles:
            own_stack = max((stack for stack, _ in stacks), key=lambda stack: _common(stack, name), default=None)
            before = None if own_stack is None else place[name] < place[own_stack]
            parent = model.get_submodule(name.rpartition(".")[0])
            roles[name] = "head" if id(module) not in in_base else _role_outside(name, parent, before)
    return [Norm(name, module, layers.get(name), roles[name]) for name, module in found.items()]


def _is_norm(module: "torch.nn.Module") -> bool:
    import torch

    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.nn.Parameter):
        return False
    named = type(module).__name__.endswith(("LayerNorm", "RMSNorm")) and weight.ndim == 1
    return named or isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm)


def _stacks(model: Any, modules: list[tuple[str, Any]], norms: list[str]) -> list[tuple[str, Any]]:
    """(name, ModuleList) of the stacks of layers, in the order in which data passes them; empty if there are none."""
    import torch

    config = getattr(model, "config", None)
    counts = _layer_counts(config)
    stacks: list[tuple[str, Any]] = []
    for name, module in modules:  # outer modules come before inner ones
        fits = isinstance(module, torch.nn.ModuleList) and len(module) in counts
        nested = any(name.startswith(f"{outer}.") for outer, _ in stacks)
        if fits and not nested and any(norm.startswith(f"{name}.") for norm in norms):
            stacks.append((name, module))
    if len(stacks) < 2:
        return stacks
    encoder = [stack for stack in stacks if "encoder" in stack[0].split(".")]
    decoder = [stack for stack in stacks if "decoder" in stack[0].split(".")]
    if len(stacks) == 2 and len(encoder) == len(decoder) == 1:
        return encoder + decoder
    raise UserError(
        f"{type(model).__name__} has {len(stacks)} stacks of layers ({', '.join(name for name, _ in stacks)}): "
        "give the part of the model that holds the one you mean, such as `model.vision_model`"
    )


def _layer_counts(config: Any) -> set[int]:
    """Numbers of layers named by a configuration and by those inside it."""
    if config is None:
        return set()
    counts = {value for key in COUNTS if isinstance(value := getattr(config, key, None), int)}
    for inner in vars(config).values():
        if hasattr(inner, "to_diff_dict"):
            counts |= _layer_counts(inner)
    return counts


def _roles_in_layer(block: Any, paths: list[str]) -> dict[str, Role]:
    """Role of each norm of one layer, given by its path in it, in the order of modules."""
    own = {path: path.rpartition(".")[2] for path in paths}
    roles: dict[str, Role] = {}
    unnamed: list[str] = []
    for path in paths:
        role = _role_by_name(block, path)
        if POST_ATTENTION.match(own[path]) and role is None:
            reads = any(name.startswith("input") for name in own.values())
            sandwich = any(PRE_FEED_FORWARD.match(name) for name in own.values())
            role = "feed_forward" if reads and not sandwich else "attention"
        if role is None:
            unnamed.append(path)
        else:
            roles[path] = role
    if len(unnamed) == 1:
        taken = any(role == "attention" and not HEADS_NORM.match(own[path]) for path, role in roles.items())
        roles[unnamed[0]] = "feed_forward" if taken else "attention"
    else:
        half = (len(unnamed) + 1) // 2
        roles |= {path: "attention" if number < half else "feed_forward" for number, path in enumerate(unnamed)}
    return roles


def _role_by_name(block: Any, path: str) -> Role | None:
    *outer, own = path.split(".")
    module = block
    for part in outer:
        module = module.get_submodule(part)
        words = f"{part} {type(module).__name__}"
        if IN_ATTENTION.search(words):
            return "attention"
        if IN_FEED_FORWARD.search(words):
            return "feed_forward"
    if POST_ATTENTION.match(own):
        return None
    if OWN_ATTENTION.search(own) or HEADS_NORM.match(own):
        return "attention"
    return "feed_forward" if OWN_FEED_FORWARD.search(own) else None


def _role_outside(name: str, parent: Any, before: bool | None) -> Role:
    """Role of a norm of the base model outside the layers; `before`: whether it stands before them, None unknown."""
    own = name.rpartition(".")[2]
    # DeBERTa-v2 normalizes its table of relative positions in the encoder
    if "emb" in name.lower() or (own == "LayerNorm" and hasattr(parent, "rel_embeddings")):
        return "embedding"
    if OWN_FINAL.search(own):
        return "final"
    if before is None:
        return "other"
    return "embedding" if before else "final"


def _common(a: str, b: str) -> int:
    """Number of leading path components that two names share."""
    same = [x == y for x, y in zip(a.split("."), b.split("."), strict=False)]
    return same.index(False) if False in same else len(same)


def select_norms(model: "torch.nn.Module", which: Which) -> list[Norm]:
    """The norms that an arm strips.

    none: no norm. all: every norm, also those of embedding, end and head, as the paper does. early, middle, late: the
    norms of a third of the layers by index, 4/4/4 of 12; a number of layers that 3 does not divide is split as
    `numpy.array_split` does, the earlier thirds getting one more (8: 3/3/2). attention, feed_forward: norms of the
    layers with that role.

    Raises UserError for an unknown word, and for a model where the choice would be empty or cannot be made.
    """
    if which not in WHICH:
        close = difflib.get_close_matches(str(which), WHICH, n=1, cutoff=0.5)
        hint = f"write '{close[0]}'" if close else f"write one of {', '.join(WHICH)}"
        raise UserError(f"no group of norms named {which!r}: {hint}")
    norms = find_norms(model)
    kind = type(model).__name__
    if not norms:
        raise UserError(f"{kind} has no LayerNorm or RMSNorm with parameters: use a model that has norms")
    if which in ("none", "all"):
        return norms if which == "all" else []
    if all(norm.layer is None for norm in norms):
        raise UserError(f"the layers of {kind} cannot be told apart: write 'all' or 'none' instead of '{which}'")
    if which in SIDES:
        chosen = [norm for norm in norms if norm.layer is not None and norm.role == which]
        if not chosen:
            raise UserError(f"the layers of {kind} have no norm of their own for {which}: write 'all' or another side")
        return chosen
    layers = 1 + max(norm.layer for norm in norms if norm.layer is not None)
    if layers < len(THIRDS):
        raise UserError(f"{kind} has {layers} layers, too few for thirds: write 'all', or use a model with 3 or more")
    third = set(np.array_split(np.arange(layers), len(THIRDS))[THIRDS.index(which)].tolist())
    return [norm for norm in norms if norm.layer in third]


def strip_norm_parameters(model: "torch.nn.Module", which: Which) -> StripReport:
    """Set gains to 1 and biases to 0 for good (`requires_grad` False); the normalization stays (section 3.2).

    The model is changed in place. `model.config.stripped_norms` keeps a record, {which, names, head: those in a head},
    which `save_pretrained` writes; call `refreeze_norms` after loading, as `requires_grad` is not saved. A second call
    adds to the record. Works for every norm class, also those that multiply by 1 + weight.
    """
    norms = select_norms(model, which)
    report = _fix(which, norms)
    config: Any = model.config
    old = getattr(config, "stripped_norms", None) or {"which": "none", "names": [], "head": []}
    words = [word for word in (old["which"], which) if word != "none"]
    config.stripped_norms = {
        "which": "+".join(dict.fromkeys(words)) or "none",
        "names": list(dict.fromkeys(old["names"] + report.names)),
        "head": list(dict.fromkeys(old["head"] + [norm.name for norm in norms if norm.role == "head"])),
    }
    return report


def refreeze_norms(model: "torch.nn.Module") -> StripReport:
    """Strip again what `model.config.stripped_norms` records; does nothing for a model without a record.

    Recorded norms of a head that the model no longer has (masked LM, then classifier) are passed over. Raises UserError
    when another recorded norm is missing.
    """
    config: Any = getattr(model, "config", None)
    record = getattr(config, "stripped_norms", None) or {"which": "none", "names": [], "head": []}
    if not record["names"]:
        return StripReport(record["which"])
    there = {norm.name: norm for norm in find_norms(model)}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    chosen = []
    for name in record["names"]:
        # a model with a head calls its norms by the name of the base model before them, the base model does not
        known = [there[n] for n in (name, prefix + name, name.removeprefix(prefix)) if n in there]
        if not known and name not in record["head"]:
            raise UserError(f"{type(model).__name__} has no norm {name}, which its configuration says was stripped: "
                            "load it with the class it was saved from")  # fmt: skip
        chosen += known[:1]
    return _fix(record["which"], chosen)


def _fix(which: str, norms: list[Norm]) -> StripReport:
    import torch

    report = StripReport(which)
    for norm in norms:
        gain, bias = _parameters(norm.module)
        with torch.no_grad():
            gain.fill_(neutral_weight(norm.module))
            if bias is not None:
                bias.zero_()
        for parameter in (gain, bias):
            if parameter is not None:
                parameter.requires_grad_(False)
                parameter.grad = None
                report.parameters += parameter.numel()
        key = (OUTSIDE if norm.layer is None else norm.layer, norm.role)
        report.counts[key] = report.counts.get(key, 0) + 1
        report.names.append(norm.name)
    return report


def _parameters(module: Any) -> tuple["torch.nn.Parameter", "torch.nn.Parameter | None"]:
    return module.weight, getattr(module, "bias", None)


def neutral_weight(module: "torch.nn.Module") -> float:
    """The value of a norm's weight at which its gain is 1: 1 for most classes, 0 for those that use 1 + weight (Gemma).

    Measured: the output is (a + weight) times the normalized input, so outputs at weights 0 and 1 give a. The module's
    own parameters are not touched.
    """
    import torch

    if type(module) in (torch.nn.LayerNorm, torch.nn.RMSNorm):
        return 1.0
    weight, bias = _parameters(module)
    probe = torch.linspace(-1, 2, weight.numel(), dtype=weight.dtype, device=weight.device).reshape(1, 1, -1)
    zero_bias = {} if bias is None else {"bias": torch.zeros_like(bias)}

    def output(value: float) -> "torch.Tensor":
        parameters = {"weight": torch.full_like(weight, value), **zero_bias}
        return torch.func.functional_call(module, parameters, (probe,)).double()

    try:
        with torch.no_grad():
            at_zero, at_one = output(0.0), output(1.0)
    except TypeError as error:
        raise UserError(f"{type(module).__name__} takes more than one input, so its gain cannot be measured: "
                        "strip norms of another model") from error  # fmt: skip
    slope = at_one - at_zero
    return round(1.0 - float((at_zero * slope).sum() / (slope * slope).sum()), 2)


def norm_movement(model: "torch.nn.Module") -> list[dict[str, Any]]:
    """How far the parameters of each norm are from gain 1 and bias 0: one row a norm.

    Keys: norm (name), layer (-1 outside the layers), role, gain_moved = rms(gain - 1), bias_moved = rms(bias), NaN
    for a norm without bias. Where the gain is 1 + weight, gain_moved is rms(weight).
    """
    rows = []
    for norm in find_norms(model):
        gain, bias = _parameters(norm.module)
        moved = (gain.detach().double() - neutral_weight(norm.module)).square().mean().sqrt()
        rows.append(
            {
                "norm": norm.name,
                "layer": OUTSIDE if norm.layer is None else norm.layer,
                "role": norm.role,
                "gain_moved": float(moved),
                "bias_moved": float("nan") if bias is None else float(bias.detach().double().square().mean().sqrt()),
            }
        )
    return rows
