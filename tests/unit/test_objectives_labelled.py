"""Objectives of `layernorm` against sums written out item by item, without padding."""

import numpy as np
import pytest
import torch
from norm_models import tiny

from memorization.models.build import build
from memorization.training.items import pad
from memorization.training.objectives import (
    causal_lm,
    class_logits,
    classification,
    label_word,
    next_token_logits,
    text_and_word,
    word_logits,
)
from tiny_labelled import CLASSES, LONGEST, VOCABULARY, WORDS, text_model, vision_model

STD = 0.3  # of the initial weights: logits that differ from item to item
TEXTS = [[1, 5, 9, 12, 4, 2], [1, 14, 2], [1, 7, 7, 3, 20, 16, 11, 2], [1, 18, 6, 2]]
WORDS_BEHIND = [WORDS, WORDS + 3, WORDS + 1, WORDS]
TARGETS = torch.tensor([2, 0, 1, 2])


def model_of(architecture: str, head: str = "language_model"):
    """A model in double precision and evaluation mode."""
    return build(text_model(architecture, head, initializer_std=STD), seed=2).double().eval()


def enlarged(name: str):
    """A tiny BERT whose weights are large enough for logits that differ from item to item."""
    model = tiny(name, 3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(15)
    return model


def with_words(padding: int = 0):
    """(batch, sequences): every text with its word behind it."""
    sequences = [[*ids, word] for ids, word in zip(TEXTS, WORDS_BEHIND, strict=True)]
    items = pad(sequences, [0] * 4, ["a"] * 4, "train", padding=padding)
    return items.batch(np.arange(4)), sequences


def log_p(model, ids: list[int]) -> torch.Tensor:
    """(len(ids) - 1,) log-probability of every token after the first, of one text alone."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def losses(model, sequences) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of every text: losses of its tokens after the first, and of the word behind."""
    both = [-log_p(model, ids) for ids in sequences]
    return [one[:-1] for one in both], [one[-1] for one in both]


# ---- text_and_word


@pytest.mark.parametrize("architecture", ["gpt2", "openai_gpt", "gpt_neox"])
def test_with_share_1_every_token_counts_once_and_the_word_by_its_weight(architecture):
    model = build(text_model(architecture, "language_model", initializer_std=STD), seed=2).double().eval()
    batch, sequences = with_words()
    text, word = losses(model, sequences)
    loss, number = text_and_word(model, batch, share=1.0, weight=2.5, words=WORDS)
    torch.testing.assert_close(loss.double(), sum(map(torch.sum, text)) + 2.5 * sum(word), rtol=1e-6, atol=0)
    assert number == sum(len(ids) - 1 for ids in TEXTS) + 4 * 2.5


def test_a_weight_of_1_is_the_plain_next_token_loss():
    model, (batch, _) = model_of("gpt2"), with_words()
    plain, ours = causal_lm(model, batch), text_and_word(model, batch, share=1.0, weight=1.0, words=WORDS)
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-6, atol=0)
    assert ours[1] == plain[1]


def test_the_share_that_is_predicted_is_drawn_from_torchs_rng():
    """Which places those are is worked out by drawing the same numbers again; the words are among them always."""
    model, (batch, sequences) = model_of("gpt2"), with_words()
    text, word = losses(model, sequences)
    kept = []
    for seed in range(5):
        torch.manual_seed(seed)
        loss, number = text_and_word(model, batch, share=0.4, weight=3.0, words=WORDS)
        torch.manual_seed(seed)
        drawn = torch.rand(4, batch["labels"].shape[1] - 1) < 0.4
        chosen = [one[drawn[row, : len(one)]] for row, one in enumerate(text)]
        kept.append(sum(map(len, chosen)))
        torch.testing.assert_close(loss.double(), sum(map(torch.sum, chosen)) + 3.0 * sum(word), rtol=1e-6, atol=0)
        assert number == kept[-1] + 4 * 3.0
    assert len(set(kept)) > 1 and 0 < min(kept) <= max(kept) < sum(map(len, text))


def test_on_average_the_share_of_the_text_and_all_words_count():
    """400 draws: within 4 standard errors, which are those of a sum over tokens that are kept or not."""
    model, (batch, sequences) = model_of("gpt2"), with_words()
    text, word = losses(model, sequences)
    tokens = torch.cat(text).detach()
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = [text_and_word(model, batch, share=0.25, weight=8.0, words=WORDS) for _ in range(400)]
    mean = float(np.mean([float(loss) for loss, _ in drawn]))
    wanted = float(0.25 * tokens.sum() + 8.0 * sum(word).detach())
    error = float((0.25 * 0.75 * tokens.square().sum() / 400).sqrt())
    assert abs(mean - wanted) < 4 * error < 0.05 * float(tokens.sum())
    number = np.mean([float(count) for _, count in drawn]) - 4 * 8.0
    assert abs(number - 0.25 * len(tokens)) < 4 * (0.25 * 0.75 * len(tokens) / 400) ** 0.5


def test_no_share_leaves_the_words_alone():
    model, (batch, sequences) = model_of("openai_gpt"), with_words()
    loss, number = text_and_word(model, batch, share=1e-12, weight=0.5, words=WORDS)
    torch.testing.assert_close(loss.double(), 0.5 * sum(losses(model, sequences)[1]), rtol=1e-6, atol=0)
    assert number == 2.0


@pytest.mark.parametrize("architecture", ["gpt2", "openai_gpt"])
def test_gradients_are_those_of_the_written_out_sum(architecture):
    ours, theirs = model_of(architecture), model_of(architecture)
    batch, sequences = with_words()
    text_and_word(ours, batch, share=1.0, weight=2.0, words=WORDS)[0].backward()
    text, word = losses(theirs, sequences)
    (sum(map(torch.sum, text)) + 2.0 * sum(word)).backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        # the cross-entropy is computed in float32
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


# ---- logits at chosen places


class Wrapped(torch.nn.Module):
    """A model as data-parallel training wraps it: only `forward` is left."""

    def __init__(self, model) -> None:
        super().__init__()
        self.module = model

    def forward(self, **given):
        return self.module(**given)


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapped])
@pytest.mark.parametrize("architecture", ["gpt2", "openai_gpt", "gpt_neox"])
def test_logits_of_chosen_places_are_those_of_the_whole_model(architecture, wrap):
    model, (batch, sequences) = model_of(architecture), with_words()
    generator = torch.Generator().manual_seed(1)
    there = batch["labels"][:, 1:] != -100
    chosen = there & (torch.rand(there.shape, generator=generator) < 0.5)
    assert 4 < chosen.sum() < there.sum()
    wanted = [
        model(input_ids=torch.tensor([ids])).logits[0, place]
        for row, ids in enumerate(sequences)
        for place in range(len(ids) - 1)
        if chosen[row, place]
    ]
    got = next_token_logits(wrap(model), batch, chosen)
    assert got.shape == (int(chosen.sum()), VOCABULARY)
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-9, atol=1e-12)


# ---- classes


def labelled_batch(padding: int):
    items = pad(TEXTS, [0] * 4, ["a"] * 4, "train", padding=padding)
    return {**items.batch(np.arange(4)), "target": TARGETS}


def classifier(name: str, padding: int):
    if name == "bert":
        return enlarged("bert")
    model = model_of(name, "classification")
    model.config.pad_token_id = padding
    return model


@pytest.mark.parametrize("padding", [0, 24])
@pytest.mark.parametrize("name", ["gpt2", "openai_gpt", "bert"])
def test_classification_is_the_loop_over_unpadded_texts(name, padding):
    model, batch = classifier(name, padding), labelled_batch(padding)
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in TEXTS])
        got = class_logits(model, batch)
        loss, number = classification(model, batch)
    assert got.shape == (4, CLASSES) and float(got.std(0).min()) > 1e-3
    torch.testing.assert_close(got, alone, rtol=1e-6, atol=1e-9)
    wanted = -sum(alone[row].log_softmax(0)[TARGETS[row]] for row in range(4))
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    assert number == 4


def test_a_decoders_class_is_read_behind_the_last_token():
    """By its parts: the head applied to the last real position."""
    model, batch = classifier("gpt2", 0), labelled_batch(0)
    with torch.no_grad():
        hidden = [model.transformer(torch.tensor([ids])).last_hidden_state[0, -1] for ids in TEXTS]
        torch.testing.assert_close(class_logits(model, batch), torch.stack(hidden) @ model.score.weight.T)


def test_pixels_reach_the_model_between_minus_1_and_1():
    model = build(vision_model(initializer_std=STD), seed=4).eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[0], pixels[1] = 0, 255
    values = (pixels.double() - 127.5) / 127.5
    assert values[0].unique() == -1 and values[1].unique() == 1
    with torch.no_grad():
        wanted = torch.cat([model(pixel_values=one[None].float()).logits for one in values])
        got = class_logits(model, {"pixels": pixels})
        target = torch.tensor([0, 1, 2, 1, 0])
        loss, number = classification(model, {"pixels": pixels, "target": target})
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert got.shape == (5, CLASSES) and float(got.std(0).min()) > 1e-3
    by_hand = -sum(wanted[row].log_softmax(0)[target[row]] for row in range(5))
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=0)
    assert number == 5


# ---- the word of a class


def word_batch(behind: list[int]):
    """Texts with something behind each, and the class's word as the only label, there."""
    items = pad([[*ids, token] for ids, token in zip(TEXTS, behind, strict=True)], [0] * 4, ["a"] * 4, "train")
    items.labels.fill_(-100)
    words = WORDS + TARGETS
    items.labels[torch.arange(4), torch.from_numpy(items.length - 1)] = words
    return {**items.batch(np.arange(4)), "target": TARGETS}, words


def compare_words(got, wanted, words, loss, number):
    torch.testing.assert_close(got[0], wanted, rtol=1e-6, atol=1e-9)
    assert torch.equal(got[1], words) and float(wanted.std(0).max()) > 1e-3
    by_hand = -sum(wanted[row].log_softmax(0)[words[row]] for row in range(4))
    torch.testing.assert_close(loss.double(), by_hand, rtol=1e-6, atol=0)
    assert number == 4


def test_a_masked_model_fills_in_the_word_at_the_mask():
    model = enlarged("bert_mlm")
    mask = 39
    batch, words = word_batch([mask] * 4)
    with torch.no_grad():
        wanted = torch.stack([model(input_ids=torch.tensor([[*ids, mask]])).logits[0, -1] for ids in TEXTS])
        got = word_logits(model, batch, masked=True)
        loss, number = label_word(model, batch)
    compare_words(got, wanted, words, loss, number)


@pytest.mark.parametrize("architecture", ["gpt2", "openai_gpt", "gpt_neox"])
def test_a_decoder_predicts_the_word_from_the_text_before_it(architecture):
    """The word is not in the sequence of the hand-made loop, so it cannot give itself away."""
    model = model_of(architecture)
    batch, words = word_batch((WORDS + TARGETS).tolist())
    with torch.no_grad():
        wanted = torch.stack([model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in TEXTS])
        got = word_logits(model, batch, masked=False)
        loss, number = label_word(model, batch, masked=0)
    compare_words(got, wanted, words, loss, number)
    assert batch["input_ids"].shape[1] == LONGEST + 1
