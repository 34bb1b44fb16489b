"""TokenSwap between models of different vocabularies: incremental text equals encoding it all again."""

import pytest
import torch
from swap_models import ARCHITECTURES, V, cached_model, literal, model, text, trained
from transformers import (
    PreTrainedTokenizerFast,
)

from memorization.errors import UserError
from memorization.methods.auxiliary import Auxiliary, window_start
from memorization.methods.retokenize import RowText, Tokenizers
from memorization.methods.tokenswap import (
    TokenSwapProcessor,
    teacher_forced_log_probs,
)

# different vocabularies

PAIRS = [
    ("bytes", "bytes2"),
    ("bytes2", "bytes"),
    ("bytes", "wordpiece"),
    ("bytes", "unigram"),
    ("bytes", "fallback"),
    ("wordpiece", "bytes"),
    ("unigram", "bytes"),
    ("fallback", "bytes2"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_incremental_text_equals_encoding_it_all_again(pair):
    """At every step: real text token by token, then tokens at random, many of which are no whole characters."""
    main, aux = (trained(kind) for kind in pair)
    streams = [main.encode(text()[-700:]).ids]
    rng = torch.Generator().manual_seed(0)
    streams.append(torch.randint(0, main.get_vocab_size(), (250,), generator=rng).tolist())
    both = Tokenizers(main, aux)
    both.fallback = both.fallback or [0]  # for the first tokens at random, which may be special
    for stream in streams:
        row = RowText(both)
        for t in range(1, len(stream) + 1):
            seen = row.update(stream[:t])
            whole = main.decode(stream[:t], skip_special_tokens=True)
            assert row.text == whole, t
            expected = both.front + aux.encode(whole, add_special_tokens=False).ids if whole else both.fallback
            if pair[1] == "wordpiece" and whole:  # with the front, without the [SEP] behind
                assert expected == aux.encode(whole).ids[:-1]
            assert seen == (expected if len(expected) > len(both.front) else both.fallback), t


@pytest.mark.parametrize("kind", ["bytes2", "wordpiece", "unigram"])
def test_incremental_work_does_not_grow_with_the_text(kind, monkeypatch):
    main, aux = trained("bytes"), trained(kind)
    both, longest = Tokenizers(main, aux), 0
    encode = both.encode

    def counted(piece: str) -> list[int]:
        nonlocal longest
        longest = max(longest, len(piece))
        return encode(piece)

    monkeypatch.setattr(both, "encode", counted)
    row, ids = RowText(both), main.encode(text()[:3000]).ids
    for t in range(1, len(ids) + 1):
        row.update(ids[:t])
    assert longest < 400


def full(both: Tokenizers, main_ids: list[int]) -> torch.Tensor:
    whole = both.main.decode(main_ids, skip_special_tokens=True)
    return torch.tensor([both.front + both.aux.encode(whole, add_special_tokens=False).ids])


@pytest.mark.parametrize("kind", ARCHITECTURES + ["mistral"])
def test_the_auxiliary_follows_contexts_that_lose_their_end(kind):
    """Rows of a batch grow, stay or fall back by different lengths; the cached logits are those of full passes."""
    aux, rng = Auxiliary(cached_model(kind, 2)), torch.Generator().manual_seed(0)
    rows = [torch.randint(1, V, (n,), generator=rng).tolist() for n in (9, 4, 12)]
    for step in range(30):
        logits = aux.advance(rows)
        with torch.no_grad():
            expected = torch.cat([aux.model(torch.tensor([row])).logits[:, -1] for row in rows])
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        for i, row in enumerate(rows):
            drop, add = ((3, 1), (0, 2), (1, 1), (0, 0), (2, 0), (0, 1))[(step * (i + 1) + i) % 6]
            rows[i] = row[: max(1, len(row) - drop)] + torch.randint(1, V, (add,), generator=rng).tolist()
        assert max(map(len, rows)) <= 64


@pytest.mark.parametrize("kind", ["bytes2", "wordpiece", "unigram"])
def test_two_vocabularies_equal_the_literal_decode_and_encode(kind):
    main_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"), bos_token="<s>", pad_token="<s>")
    aux_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained(kind))
    main = model("gpt2", 1, len(main_tokenizer), positions=128)
    aux = model("gpt2", 2, len(aux_tokenizer), positions=256)
    swap = TokenSwapProcessor(aux, main_tokenizer, "english-110", aux_tokenizer=aux_tokenizer)
    assert len(swap.coverage) >= 20
    both = Tokenizers(trained("bytes"), trained(kind))
    source = [main_tokenizer.encode(text()[i : i + 400]) for i in (0, 1000, 2000)]
    rows = torch.tensor([[0] * pad + row[: 90 - pad] for pad, row in zip((7, 0, 3), source, strict=True)])
    swap.attention_mask = (torch.arange(20) >= torch.tensor([7, 0, 3])[:, None]).long()
    for t in range(20, 90):
        with torch.no_grad():
            scores = main(rows[:, :t]).logits[:, -1]
            expected = torch.stack(
                [
                    literal(one, aux(full(both, row[pad:t].tolist())).logits[0, -1], swap.ids_main, swap.ids_aux)
                    for one, row, pad in zip(scores, rows, (7, 0, 3), strict=True)
                ]
            )
        torch.testing.assert_close(swap(rows[:, :t], scores).double().exp(), expected, atol=1e-5, rtol=1e-4)


def test_two_vocabularies_with_a_window():
    main, both = PreTrainedTokenizerFast(tokenizer_object=trained("bytes")), Tokenizers(*map(trained, PAIRS[0]))
    aux = model("gpt2", 2, trained("bytes2").get_vocab_size(), positions=32)
    swap = TokenSwapProcessor(aux, main, aux_tokenizer=both.aux, long_context="window")
    rows = torch.tensor([main.encode(text()[i : i + 400])[:60] for i in (0, 1000)])
    for t in range(10, 60):
        logits = swap.auxiliary_logits(rows[:, :t])
        for row, seen in zip(rows, logits, strict=True):
            whole = full(both, row[:t].tolist())
            with torch.no_grad():
                expected = aux(whole[:, window_start(whole.shape[1], 32) :]).logits[0, -1]
            torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)
    assert whole.shape[1] > 64
    with pytest.raises(UserError, match="max_position_embeddings is 32"):
        TokenSwapProcessor(aux, main, aux_tokenizer=both.aux).auxiliary_logits(rows)


def test_two_vocabularies_generate_and_teacher_force_the_same():
    main_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"), bos_token="<s>", pad_token="<s>")
    aux_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes2"))
    main = model("neox", 1, len(main_tokenizer), positions=128)
    aux = model("llama", 2, len(aux_tokenizer), positions=512)
    swap = TokenSwapProcessor(aux, main_tokenizer, aux_tokenizer=aux_tokenizer)
    ids = torch.tensor([main_tokenizer.encode(text()[i : i + 60])[:12] for i in (0, 500)])
    ids[1, :4] = 0
    mask = (torch.arange(12) >= torch.tensor([0, 4])[:, None]).long()
    written = main.generate(
        ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0, logits_processor=[swap]
    )
    mask = torch.cat([mask, torch.ones(2, 20, dtype=torch.long)], 1)
    forced = teacher_forced_log_probs(main, aux, written, mask, tokenizer=main_tokenizer, aux_tokenizer=aux_tokenizer)
    assert torch.equal(forced[:, 11:-1].argmax(-1), written[:, 12:])
    # the same vocabulary under another name is one vocabulary
    again = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"))
    small = model("gpt2", 2, len(main_tokenizer))
    assert TokenSwapProcessor(small, main_tokenizer, aux_tokenizer=again)._tokenizers is None


def test_what_stands_before_the_auxiliarys_text():
    main = trained("bytes")
    wordpiece = PreTrainedTokenizerFast(tokenizer_object=trained("wordpiece"), bos_token="[CLS]")
    cls = wordpiece.bos_token_id
    assert Tokenizers(main, wordpiece).front == [cls]
    assert Tokenizers(main, wordpiece, aux_bos=False).front == []
    assert Tokenizers(main, PreTrainedTokenizerFast(tokenizer_object=trained("bytes2"))).front == []
    bos = PreTrainedTokenizerFast(tokenizer_object=trained("bytes2"), bos_token="<s>")
    assert Tokenizers(main, bos, aux_bos=True).front == [bos.bos_token_id]
    assert RowText(Tokenizers(main, bos)).update([0]) == [bos.bos_token_id]  # <s> alone is no text
    with pytest.raises(UserError, match="no bos token"):
        Tokenizers(main, trained("bytes2"), aux_bos=True)
    with pytest.raises(UserError, match="prompt with some text"):
        RowText(Tokenizers(main, trained("bytes2"))).update([0])
