"""Norms of other families, gains stored as 1 + weight, the record in the configuration, movement, and bad input."""

import copy
import math

import pytest
import torch
import transformers as t
from norm_models import BERT, IMAGE, batch, randomize, tiny

from memorization.errors import UserError
from memorization.models.norms import (
    find_norms,
    neutral_weight,
    norm_movement,
    refreeze_norms,
    select_norms,
    strip_norm_parameters,
)


def roles(model: torch.nn.Module) -> dict[str, tuple[int | None, str]]:
    return {norm.name: (norm.layer, norm.role) for norm in find_norms(model)}


def layer_roles(model: torch.nn.Module, layer: int) -> dict[str, str]:
    """Role by the last part of the name."""
    return {n.name.rpartition(".")[2]: n.role for n in find_norms(model) if n.layer == layer}


def test_roles_of_blocks_with_more_norms_or_fewer():
    attention, feed_forward = "attention", "feed_forward"
    sandwich = {
        "input_layernorm": attention,
        "post_attention_layernorm": attention,
        "pre_feedforward_layernorm": feed_forward,
        "post_feedforward_layernorm": feed_forward,
    }
    assert layer_roles(tiny("gemma2", 3), 1) == sandwich
    assert layer_roles(tiny("gemma3", 3), 1) == {"q_norm": attention, "k_norm": attention} | sandwich
    after = {"post_attention_layernorm": attention, "post_feedforward_layernorm": feed_forward}
    assert layer_roles(tiny("olmo2", 3), 1) == {"q_norm": attention, "k_norm": attention} | after
    before = {"input_layernorm": attention, "post_attention_layernorm": feed_forward}
    assert layer_roles(tiny("llama", 3), 1) == layer_roles(tiny("gpt_neox", 3), 1) == before
    assert layer_roles(tiny("phi", 3), 1) == {"input_layernorm": attention}
    assert layer_roles(tiny("opt", 3), 1) == {"self_attn_layer_norm": attention, "final_layer_norm": feed_forward}


def test_norms_outside_the_layers():
    def outside(model: torch.nn.Module) -> dict[str, str]:
        return {name: role for name, (layer, role) in roles(model).items() if layer is None}

    assert outside(tiny("llama", 2)) == {"model.norm": "final"}
    assert outside(tiny("gpt_neox", 2)) == {"gpt_neox.final_layer_norm": "final"}
    assert outside(tiny("opt", 2)) == {"model.decoder.final_layer_norm": "final"}  # registered before the layers
    mlm = {"bert.embeddings.LayerNorm": "embedding", "cls.predictions.transform.LayerNorm": "head"}
    assert outside(tiny("bert_mlm", 2)) == mlm
    assert outside(tiny("bert_mlm", 2).bert) == {"embeddings.LayerNorm": "embedding"}
    config = t.RobertaPreLayerNormConfig(**BERT, num_hidden_layers=2)
    pre = outside(t.RobertaPreLayerNormForMaskedLM(config))
    assert list(pre.values()) == ["embedding", "final", "head"]
    config = t.DebertaV2Config(**BERT, num_hidden_layers=2, relative_attention=True, norm_rel_ebd="layer_norm")
    assert list(outside(t.DebertaV2Model(config)).values()) == ["embedding", "embedding"]


def test_layers_of_an_encoder_decoder_are_counted_through():
    """3 encoder and 2 decoder layers; cross-attention is attention."""
    found = roles(tiny("t5", 3))
    assert found["encoder.block.2.layer.0.layer_norm"] == (2, "attention")
    assert found["encoder.block.2.layer.1.layer_norm"] == (2, "feed_forward")
    assert [found[f"decoder.block.1.layer.{n}.layer_norm"] for n in (0, 1, 2)] == [
        (4, "attention"),
        (4, "attention"),
        (4, "feed_forward"),
    ]
    assert found["encoder.final_layer_norm"] == found["decoder.final_layer_norm"] == (None, "final")
    assert len(found) == 2 * 3 + 3 * 2 + 2


def test_the_neutral_weight_is_measured():
    """Against the formulas of the classes: gain = weight, and gain = 1 + weight."""
    for name, neutral in (("llama", 1), ("qwen2", 1), ("deberta", 1), ("t5", 1), ("gemma2", 0), ("gemma3", 0)):
        for norm in find_norms(tiny(name, 2)):
            weight = norm.module.weight.detach().clone()
            assert neutral_weight(norm.module) == neutral
            assert torch.equal(norm.module.weight, weight)  # measuring changes nothing


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "llama", "gpt_neox", "t5"])
def test_stripping_other_families(name):
    """As a model whose norms have gain 1 from the start, and no change for such a model."""
    model = tiny(name, 3)
    start = copy.deepcopy(model)
    randomize(model)
    with torch.no_grad():
        before = model(**batch(model)).logits
        strip_norm_parameters(model, "all")
        after = model(**batch(model)).logits
        for norm in find_norms(start):  # parameters of one dimension that are not of norms, as in the moved model
            model.get_submodule(norm.name).load_state_dict(norm.module.state_dict())
        by_hand = model(**batch(model)).logits
        assert torch.equal(after, by_hand) and not torch.allclose(before, after, atol=1e-3)
        untouched = start(**batch(start)).logits
        strip_norm_parameters(start, "all")
        assert torch.equal(start(**batch(start)).logits, untouched)


def test_movement_by_hand():
    model = tiny("bert", 1)
    norm = find_norms(model)[1]
    with torch.no_grad():
        norm.module.weight.copy_(torch.tensor([1.0, 4.0] * 8))  # rms(0, 3) = 3 / sqrt(2)
        norm.module.bias.fill_(-0.5)
    rows = norm_movement(model)
    assert [row["layer"] for row in rows] == [-1, 0, 0]
    assert [row["role"] for row in rows] == ["embedding", "attention", "feed_forward"]
    assert rows[1]["norm"] == norm.name
    assert rows[1]["gain_moved"] == pytest.approx(3 / math.sqrt(2)) and rows[1]["bias_moved"] == pytest.approx(0.5)
    assert rows[0]["gain_moved"] == rows[2]["gain_moved"] == rows[2]["bias_moved"] == 0
    gemma = tiny("gemma2", 1)
    with torch.no_grad():
        gemma.model.norm.weight.fill_(0.25)
    last = norm_movement(gemma)[-1]
    assert last["gain_moved"] == pytest.approx(0.25) and math.isnan(last["bias_moved"])


def values(model: torch.nn.Module) -> dict[str, tuple[torch.Tensor, bool]]:
    return {norm.name: (norm.module.weight, norm.module.weight.requires_grad) for norm in find_norms(model)}


def test_the_record_survives_saving_and_freezes_again(tmp_path):
    model = tiny("bert", 3)
    randomize(model)
    report = strip_norm_parameters(model, "middle")
    assert model.config.stripped_norms == {"which": "middle", "names": report.names, "head": []}
    model.save_pretrained(tmp_path)
    loaded = t.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert all(trains for _, trains in values(loaded).values())
    again = refreeze_norms(loaded)
    assert again == report
    for name, (weight, trains) in values(loaded).items():
        assert trains == (name not in report.names)
        assert torch.equal(weight, model.get_parameter(f"{name}.weight"))
    with torch.no_grad():
        assert torch.equal(loaded(**batch(loaded)).logits, model(**batch(model)).logits)


def test_a_record_of_a_masked_language_model_fits_its_classifier_and_its_base(tmp_path):
    model = tiny("bert_mlm", 3)
    randomize(model)
    report = strip_norm_parameters(model, "all")
    assert report.counts[(-1, "head")] == 1 and len(report.names) == 8
    model.save_pretrained(tmp_path)
    for kind in (t.BertForSequenceClassification, t.BertModel):
        loaded = kind.from_pretrained(tmp_path)
        again = refreeze_norms(loaded)
        assert len(again.names) == 7 and again.counts == {k: n for k, n in report.counts.items() if k[1] != "head"}
        assert not any(trains for _, trains in values(loaded).values())
    base = t.BertModel.from_pretrained(tmp_path)
    base.config.stripped_norms = None
    strip_norm_parameters(base, "all")
    base.save_pretrained(tmp_path / "base")
    assert len(refreeze_norms(t.BertForSequenceClassification.from_pretrained(tmp_path / "base")).names) == 7


def test_a_record_that_does_not_fit_is_refused():
    model = tiny("bert", 2)
    strip_norm_parameters(model, "all")
    smaller = tiny("bert", 1)
    smaller.config.stripped_norms = model.config.stripped_norms
    with pytest.raises(UserError, match=r"no norm bert\.encoder\.layer\.1.*class it was saved from"):
        refreeze_norms(smaller)


def test_a_model_without_record_stays_as_it_is():
    model = tiny("bert", 1)
    assert refreeze_norms(model).names == []
    strip_norm_parameters(model, "none")
    assert refreeze_norms(model).names == [] and all(p.requires_grad for p in model.parameters())


def test_a_second_strip_adds_to_the_record():
    model = tiny("bert", 3)
    first, second = strip_norm_parameters(model, "early"), strip_norm_parameters(model, "late")
    strip_norm_parameters(model, "none")
    record = model.config.stripped_norms
    assert record["which"] == "early+late" and record["names"] == first.names + second.names


class TwoInputs(torch.nn.Module):
    """A norm whose second input gates it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return self.weight * x * gate


TwoInputs.__name__ = "GatedRMSNorm"


def clip() -> t.CLIPModel:
    text = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=40)
    text |= dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config={**IMAGE, "num_hidden_layers": 2}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select_norms(tiny("bert", 3), "erly"), "no group of norms named 'erly': write 'early'"),
        (lambda: select_norms(tiny("bert", 3), "later"), "write 'late'"),
        (lambda: select_norms(tiny("bert", 3), "xyz"), "write one of none, all"),
        (lambda: select_norms(torch.nn.Linear(2, 2), "all"), "Linear has no LayerNorm or RMSNorm"),
        (lambda: select_norms(torch.nn.Sequential(torch.nn.LayerNorm(3)), "early"), "write 'all' or 'none'"),
        (lambda: select_norms(tiny("albert", 4), "attention"), "cannot be told apart: write 'all' or 'none'"),
        (lambda: select_norms(tiny("bert", 2), "late"), "has 2 layers, too few for thirds: write 'all'"),
        (lambda: select_norms(tiny("phi", 3), "feed_forward"), "no norm of their own for feed_forward"),
        (lambda: find_norms(clip()), "2 stacks of layers.*give the part"),
        (lambda: neutral_weight(TwoInputs()), "GatedRMSNorm takes more than one input"),
    ],
)
def test_bad_input_says_what_to_write(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_one_tower_of_a_model_of_two_is_fine():
    assert {norm.layer for norm in find_norms(clip().vision_model)} == {None, 0, 1}
