"""Speculative decoding: the main model's own distribution, whatever the draft."""

import pytest
import torch
from scipy.stats import chisquare
from transformers import GPT2Config, GPT2LMHeadModel

from memorization.errors import UserError
from memorization.methods.speculative import speculative_generate

VOCABULARY = 5


def model(seed: int, *, vocabulary: int = VOCABULARY, std: float = 0.35) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    size = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 40, "initializer_range": std}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **size, **ends)).eval()


def first_two(one: GPT2LMHeadModel, prompt: torch.Tensor, temperature: float) -> list[torch.Tensor]:
    """Distribution of the first and the second token after the prompt, by summing over all continuations."""
    texts, weight, out = prompt[None], torch.ones(1, dtype=torch.float64), []
    with torch.no_grad():
        for _ in range(2):
            p = weight[:, None] * (one(texts).logits[:, -1].double() / temperature).softmax(-1)
            out.append(p.sum(0))
            texts = torch.cat(
                [texts.repeat_interleave(VOCABULARY, 0), torch.arange(VOCABULARY).repeat(len(texts))[:, None]], 1
            )
            weight = p.flatten()
    return out


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_text_has_the_distribution_of_the_main_model(temperature):
    """Fixed seeds. The same counts reject the draft's distribution, so the test could fail."""
    main, draft = model(3), model(8)
    prompt = torch.tensor([1, 4, 2, 2])
    draws = 130
    written = speculative_generate(
        main, draft, prompt.expand(draws, -1), max_new_tokens=3, draft_tokens=2, temperature=temperature, seed=0
    )
    own, drafted = first_two(main, prompt, temperature), first_two(draft, prompt, temperature)
    for at in range(2):
        counts = torch.bincount(written[:, at], minlength=VOCABULARY).numpy()
        assert chisquare(counts, (own[at] * draws).numpy()).pvalue > 1e-4
        assert chisquare(counts, (drafted[at] * draws).numpy()).pvalue < 1e-6


def test_rows_lengths_padding_and_seeds():
    main, draft = model(3), model(8)
    ids = torch.tensor([[0, 0, 1, 4], [1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    before = torch.get_rng_state()
    out = speculative_generate(main, draft, ids, mask, max_new_tokens=13, seed=1)
    assert out.shape == (2, 13)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(out, speculative_generate(main, draft, ids, mask, max_new_tokens=13, seed=1))
    assert not torch.equal(out, speculative_generate(main, draft, ids, mask, max_new_tokens=13, seed=2))
    # a row does not depend on the others, nor on its padding
    assert torch.equal(out[:1], speculative_generate(main, draft, ids[:1, 2:], max_new_tokens=13, seed=1))
    assert not torch.equal(*speculative_generate(main, draft, ids[1:].expand(2, -1), max_new_tokens=13, seed=1))
    assert speculative_generate(main, draft, ids[1:], max_new_tokens=1, seed=1).shape == (1, 1)


def test_settings_stored_with_the_models_do_not_matter_and_survive():
    """An end of text, top-k 1 and a penalty of either model would each change the text."""
    main, draft = model(3), model(8)
    ids = torch.tensor([[1, 2, 3, 4]])
    expected = speculative_generate(main, draft, ids, max_new_tokens=25, seed=4)
    for one in (main, draft):
        one.generation_config.update(eos_token_id=int(expected[0, 3]), top_k=1, repetition_penalty=1.5)
    assert torch.equal(speculative_generate(main, draft, ids, max_new_tokens=25, seed=4), expected)
    assert main.generation_config.top_k == draft.generation_config.top_k == 1


def test_a_draft_has_the_asked_number_of_tokens(monkeypatch):
    """The draft is run draft_tokens times for each check of the main model, without an early stop."""
    main, draft = model(3), model(3)  # the same model: every drafted token is accepted
    calls = {"main": 0, "draft": 0}
    for name, one in (("main", main), ("draft", draft)):
        plain = one.forward
        monkeypatch.setattr(
            one,
            "forward",
            lambda *a, _plain=plain, _name=name, **k: calls.update({_name: calls[_name] + 1}) or _plain(*a, **k),
        )
    speculative_generate(main, draft, torch.tensor([[1, 2, 3]]), max_new_tokens=18, draft_tokens=5, seed=0)
    assert calls == {"main": 3, "draft": 15}  # three rounds of five drafted and one of the main model's own


def test_bad_input_is_refused():
    ids = torch.tensor([[1, 2]])
    with pytest.raises(UserError, match="same tokenizer"):
        speculative_generate(model(0), model(1, vocabulary=6), ids, max_new_tokens=2)
    with pytest.raises(UserError, match="eval"):
        speculative_generate(model(0), model(1).train(), ids, max_new_tokens=2)
    for wrong in ({"max_new_tokens": 0}, {"max_new_tokens": 2, "temperature": 0.0}):
        with pytest.raises(UserError, match="at least 1"):
            speculative_generate(model(0), model(1), ids, **wrong)
