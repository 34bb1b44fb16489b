"""The words of TokenSwap's swap set, and which of them two tokenizers can swap."""

import itertools
import pickle
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError
from memorization.methods.swap_set import CLASSES, FREQUENCY_ORDER, FURTHER_WORDS, SwapSet

SENTENCES = ["a cat and the dog sat on the mat with him", "he was in the house that she had", "the need of them"] * 3


def byte_level(sentences: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        sentences, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def word_level(words: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0} | {word: i + 1 for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_the_110_words_are_the_papers_in_seven_classes():
    swap_set = SwapSet.named("english-110")
    assert swap_set.words == FUNCTION_WORDS and len(swap_set) == 110
    sizes = [sum(kind == name for kind in swap_set.classes.values()) for name in CLASSES]
    assert sizes == [15, 19, 3, 40, 7, 8 + 2, 16]
    assert swap_set.classes["need"] == "modals" and "the" in swap_set and "cat" not in swap_set


def test_the_named_sets_are_nested_beginnings_of_one_order():
    sets = [set(SwapSet.named(f"english-{size}")) for size in (9, 43, 66, 110, 136)]
    assert [len(s) for s in sets] == [9, 43, 66, 110, 136]
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert sorted(FREQUENCY_ORDER) == sorted(FUNCTION_WORDS)
    assert not set(FURTHER_WORDS) & set(FUNCTION_WORDS)
    assert set(SwapSet.named("english-136").classes.values()) == set(CLASSES)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SwapSet.named("english-101"), "did you mean 'english-110'"),
        (lambda: SwapSet.custom([]), "empty"),
        (lambda: SwapSet.custom("the"), "list of words"),
        (lambda: SwapSet.custom(["the", "of", "the"]), "gives the twice"),
        (lambda: SwapSet.custom([" the"]), "without spaces"),
        (lambda: SwapSet.union(SwapSet.custom(["a", "of"]), SwapSet.custom(["of", "by"])), "share of"),
        (lambda: SwapSet.most_frequent(3, {"the": 1}), "from 1 to 1"),
    ],
)
def test_bad_sets_are_refused_by_name(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_sets_are_made_from_words_counts_and_other_sets():
    counts = {"the": 9, "cat": 5, "of": 5, "by": 1}
    assert SwapSet.most_frequent(3, counts).words == ("the", "cat", "of")
    assert SwapSet.most_frequent(2, counts, among=SwapSet.named("english-9")).words == ("the", "of")
    both = SwapSet.union(SwapSet.custom(["cat"], name="pets"), SwapSet.named("english-9"))
    assert both.name == "pets+english-9" and len(both) == 10
    assert both.classes["cat"] == "other" and both.classes["the"] == "determiners"
    again = pickle.loads(pickle.dumps(both))
    assert again == both and again.classes == both.classes and hash(again) == hash(both)


def test_coverage_aligns_the_ids_of_the_words_that_both_tokenizers_hold():
    main, aux = byte_level(SENTENCES, 320), word_level(["the", "he", "of", "zebra"])
    report = SwapSet.custom(["the", "zebra", "of", "qualm", "and"]).coverage(main, aux)
    assert report.words == ("the", "of")
    assert list(report.main_ids) == [main.token_to_id("Ġthe"), main.token_to_id("Ġof")]
    assert list(report.aux_ids) == [aux.token_to_id("the"), aux.token_to_id("of")]
    assert report.in_main == ("the", "of", "and") and report.in_aux == ("the", "zebra", "of")
    assert "tokens in the main tokenizer" in report.missing["zebra"] and "auxiliary" not in report.missing["zebra"]
    assert report.missing["and"] == "is unknown to the auxiliary tokenizer"
    assert str(report).startswith("2 of 5 words")


def test_a_tokenizer_of_transformers_covers_the_same_words():
    plain = byte_level(SENTENCES, 320)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=plain)
    swap_set = SwapSet.named("english-110")
    assert swap_set.coverage(wrapped) == swap_set.coverage(plain)
    no_unk_set = PreTrainedTokenizerFast(tokenizer_object=word_level(["the", "of"]))
    assert no_unk_set.unk_token_id is None and swap_set.coverage(no_unk_set).words == ("the", "of")


def test_a_tokenizer_that_puts_a_space_before_every_text_gives_the_inner_form():
    tokenizer = Tokenizer(models.WordLevel({"▁x": 0, "▁the": 1, "▁": 2, "[UNK]": 3}, "[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Prepend("▁"),
            normalizers.Replace(" ", "▁"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    assert tokenizer.encode(" the").ids == [2, 1]
    assert SwapSet.custom(["the"]).coverage(tokenizer).main_ids == (1,)


def test_words_that_cannot_be_swapped_are_errors_when_they_matter():
    main = byte_level(SENTENCES, 320)
    with pytest.raises(UserError, match=r"'qualm' is \d tokens in the main tokenizer \(Ġ"):
        SwapSet.custom(["the", "qualm"]).coverage(main, strict=True)
    with pytest.raises(UserError, match="no word of 'custom' is one token"):
        SwapSet.custom(["qualm"]).coverage(main)
    uncased = word_level(["the"])
    uncased.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match="the, The as the same token"):
        SwapSet.custom(["the", "The"]).coverage(uncased)


def test_frequency_is_the_share_of_tokens_in_the_set():
    tokenizer = word_level(["the", "cat", "sat", "on", "a", "mat"])
    text = "the cat sat on the mat"  # hand count: the, on, the of six tokens
    assert SwapSet.named("english-110").frequency([text], tokenizer) == pytest.approx(3 / 6)
    assert SwapSet.named("english-110").frequency(text, tokenizer) == pytest.approx(3 / 6)
    with pytest.raises(UserError, match="no token"):
        SwapSet.named("english-110").frequency([""], tokenizer)


def test_the_module_needs_no_torch():
    code = "import memorization.methods.swap_set, memorization.methods.swap_server, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
