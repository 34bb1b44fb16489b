"""MemFree: the index is exact, and what it forbids is what a plain set of tuples forbids."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from memorization.errors import UserError
from memorization.methods.memfree import DEFAULT_N, MemFreeProcessor, NGramFilter


def corpus(seed: int = 0, *, number: int = 40, vocabulary: int = 5) -> list[list[int]]:
    """Short texts over few tokens, so that n-grams repeat; one text twice, two shorter than any n here."""
    random = np.random.default_rng(seed)
    texts = [random.integers(vocabulary, size=random.integers(1, 30)).tolist() for _ in range(number)]
    return [*texts, texts[0], [1], []]


def ngrams(texts: list[list[int]], n: int) -> set[tuple[int, ...]]:
    return {tuple(text[at : at + n]) for text in texts for at in range(len(text) - n + 1)}


def blocked_by_hand(text: list[int], known: set[tuple[int, ...]], n: int, first: int = 0) -> list[bool]:
    return [at - n + 1 >= first and tuple(text[at - n + 1 : at + 1]) in known for at in range(len(text))]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_forbidden_tokens_are_those_of_a_set_of_tuples(n):
    texts = corpus()
    known, index = ngrams(texts, n), NGramFilter.from_sequences(texts, n)
    assert len(index) == len(known)  # duplicates are kept once
    prefixes = np.random.default_rng(1).integers(5, size=(300, n - 1))
    rows, tokens = index.forbidden(prefixes)
    found = {(int(row), int(token)) for row, token in zip(rows, tokens, strict=True)}
    assert found == {
        (row, v) for row, prefix in enumerate(prefixes) for v in range(5) if (*prefix.tolist(), v) in known
    }
    assert len(found) == len(rows)


def test_colliding_hashes_change_no_answer(monkeypatch):
    """Every prefix has the same hash: candidates are all n-grams, and the comparison with the corpus decides."""
    monkeypatch.setattr("memorization.methods.memfree._mixed", lambda keys, tokens: keys)
    texts = corpus(vocabulary=12)
    known, index = ngrams(texts, 3), NGramFilter.from_sequences(texts, 3)
    prefixes = [texts[0][:2], texts[1][3:5]]
    rows, tokens = index.forbidden(np.array(prefixes))
    found = {(int(row), int(token)) for row, token in zip(rows, tokens, strict=True)}
    expected = {(row, v) for row, prefix in enumerate(prefixes) for v in range(12) if (*prefix, v) in known}
    assert found == expected
    assert 0 < len(expected) < 12


def test_no_ngram_crosses_two_sequences():
    index = NGramFilter.from_sequences([[1, 2, 3], [4, 5, 6]], 3)
    assert len(index) == 2
    assert not index.forbidden(np.array([[2, 3], [3, 4]]))[0].size


def test_blocked_marks_the_last_token_of_each_known_ngram():
    texts = corpus()
    known, index = ngrams(texts, 4), NGramFilter.from_sequences(texts, 4)
    ids = np.random.default_rng(2).integers(5, size=(20, 25))
    for first in (0, 6):
        expected = [blocked_by_hand(row, known, 4, first) for row in ids.tolist()]
        assert index.blocked(torch.from_numpy(ids), first=first).tolist() == expected
        assert 0 < np.mean(expected) < 1
    whole = MemFreeProcessor(index, prompt_counts=True).blocked(torch.from_numpy(ids), 6)
    after = MemFreeProcessor(index, prompt_counts=False).blocked(torch.from_numpy(ids), 6)
    assert whole.sum() > after.sum() > 0
    assert not after[:, :9].any()


def test_left_padding_belongs_to_no_ngram():
    """The pad id 0 is a token of the corpus too: "0 0 1" is known, but not where the zeros are padding."""
    index = NGramFilter.from_sequences([[0, 0, 1, 0, 2]], 3)
    ids = torch.tensor([[0, 0, 1, 0, 2]])
    assert index.blocked(ids).tolist() == [[False, False, True, True, True]]
    assert index.blocked(ids, pad_token_id=0).tolist() == [[False, False, False, False, True]]
    scores = torch.zeros(2, 4)
    prompt = torch.tensor([[0, 0], [1, 0]])  # a row that is padding only, and a real "1 0"
    out = MemFreeProcessor(index, pad_token_id=0)(prompt, scores)
    assert torch.isneginf(out).tolist() == [[False] * 4, [False, False, True, False]]
    assert torch.isneginf(MemFreeProcessor(index)(prompt, scores))[0].tolist() == [False, True, False, False]


def test_the_prompt_counts_or_does_not():
    """Known: 1 2 3 4. After the prompt "1 2" the token 3 is forbidden only once the n-gram lies after the prompt."""
    index = NGramFilter.from_sequences([[1, 2, 3, 4]], 3)
    scores = torch.zeros(1, 6)
    counting, not_counting = MemFreeProcessor(index), MemFreeProcessor(index, prompt_counts=False)
    text = torch.tensor([[1, 2]])
    assert torch.isneginf(counting(text, scores))[0].tolist() == [False, False, False, True, False, False]
    assert torch.equal(not_counting(text, scores), scores)
    for token, forbidden in [(1, None), (2, 3), (0, None), (2, None)]:
        text = torch.cat([text, torch.tensor([[token]])], 1)
        out = torch.isneginf(not_counting(text, scores))[0]
        assert out.nonzero().flatten().tolist() == ([] if forbidden is None else [forbidden])
    # another prompt: the state begins anew by itself, so its "1 2" does not count either
    assert torch.equal(not_counting(torch.tensor([[5, 1, 2]]), scores), scores)
    # a prompt that looks like one more step of the last text needs `reset`
    longer = torch.tensor([[5, 1, 2, 1, 2]])
    not_counting(longer[:, :4], scores)
    assert torch.isneginf(not_counting(longer, scores))[0].nonzero().flatten().tolist() == [3]
    not_counting.reset()
    assert torch.equal(not_counting(longer, scores), scores)


def test_where_everything_is_forbidden_the_scores_stay():
    index = NGramFilter.from_sequences([[7, 0], [7, 1], [7, 2], [6, 2]], 2)
    scores = torch.tensor([[0.1, 0.2, 0.3, -torch.inf] + [-torch.inf] * 4, [0.1, 0.2, 0.3] + [0.0] * 5])
    out = MemFreeProcessor(index)(torch.tensor([[7], [6]]), scores)
    assert torch.equal(out[0], scores[0])
    assert torch.isneginf(out[1]).nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize("prompt_counts", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "neox"])
def test_generation_writes_no_known_ngram_and_is_greedy_otherwise(kind, prompt_counts):
    torch.manual_seed(0)
    size = {"vocab_size": 8, "bos_token_id": None, "eos_token_id": None}
    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, initializer_range=0.5, **size)
        )
    else:
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                initializer_range=0.5,
                **size,
            )
        )
    model.eval()
    prompts = torch.randint(8, (6, 5))
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(prompts)
    plain = model.generate(prompts, attention_mask=mask, **options)
    known, index = ngrams(plain.tolist(), 3), NGramFilter.from_sequences(plain, 3)
    processor = MemFreeProcessor(index, prompt_counts=prompt_counts)
    for _ in range(2):  # the same processor serves twice
        out = model.generate(prompts, attention_mask=mask, logits_processor=[processor], **options)
        first = 0 if prompt_counts else 5
        assert not index.blocked(out, first=first)[:, 5:].any()
        assert plain[:, 5:].ne(out[:, 5:]).any(1).all()
    with torch.no_grad():  # step by step by hand
        for row in out:
            for at in range(5, 25):
                logits = model(row[None, :at]).logits[0, -1]
                begin = at - 2
                for token in range(8) if begin >= first else []:
                    if (*row[begin:at].tolist(), token) in known:
                        logits[token] = -torch.inf
                assert logits.argmax() == row[at]


def test_bad_input_is_refused():
    assert DEFAULT_N == 10
    for n in (1, 2.0, True):
        with pytest.raises(UserError, match="at least 2"):
            NGramFilter.from_sequences([[1, 2, 3]], n)
    with pytest.raises(UserError, match="smaller n"):
        NGramFilter.from_sequences([[1, 2, 3], [4]], 4)
    for wrong in ([1, 2, 3], [[0.5, 1.0, 2.0]], [[-100, 1, 2]]):
        with pytest.raises(UserError, match="one list of token ids"):
            NGramFilter.from_sequences(wrong, 2)
    index = NGramFilter.from_sequences([[1, 2, 9]], 2)
    with pytest.raises(UserError, match="this model's tokenizer"):
        MemFreeProcessor(index)(torch.tensor([[1]]), torch.zeros(1, 9))
    with pytest.raises(UserError, match="1 tokens"):
        index.forbidden(np.zeros((1, 2), int))
