"""Text for the experiments of `patterns`: tokenizer, items, shuffles, frozen embeddings.

Stands in for WikiText-103 and the GPT-2 tokenizer and embeddings at the sizes that need no network.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data.patterns import CHARACTERS, SPLITS, check_window, generator, item_lengths, nearest
from memorization.data.prose import sentences
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, END_OF_TEXT = "<pad>", "<|endoftext|>"
# Data-set name -> shuffle, by rising disorder (`patterns`, tab. 5).
KINDS = {
    "text": "none",
    "text_sentences2": "sentences2",
    "text_sentences": "sentences",
    "text_top3grams": "top3grams",
    "text_top2grams": "top2grams",
    "text_words": "words",
}
SHUFFLES = tuple(KINDS.values())
UNITS = ("sentences", "clauses")
Passage = list[tuple[int, bool]]  # (token id, starts a word)
CLAUSE_END = re.compile(r"(?<=[.,;:!?)])\s+")


@dataclass(frozen=True)
class TextItem:
    """A text and its tokens. The first `prompt_length` tokens are the prompt, the completion follows them."""

    text: str
    input_ids: tuple[int, ...]
    prompt_length: int


# --- Tokenizer ---


def train_tokenizer(texts: Sequence[str], vocabulary_size: int = 2048) -> tuple["Tokenizer", dict[str, int]]:
    """Train a byte-level BPE tokenizer in which every digit and every " word" of the 110 is one token.

    BPE merges what is frequent, and a small corpus of documentation has few "himself". So each function word
    is topped up to `minimum` occurrences in the training stream, and `minimum` doubled until all are single
    tokens.

    Returns
    -------
    tokenizer, and the number of occurrences added for each word that needed some.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    too_small = UserError(
        f"vocabulary_size {vocabulary_size} leaves no room for the {len(FUNCTION_WORDS)} function words; "
        "write a larger one (1024 is enough)."
    )
    if vocabulary_size < 256 + 2 + len(FUNCTION_WORDS):  # bytes, special tokens, words
        raise too_small
    counts = Counter(word for text in texts for word in text.split())
    minimum = max(16, counts.total() // (2 * vocabulary_size))
    for _ in range(6):
        added = {word: minimum - counts[word] for word in FUNCTION_WORDS if counts[word] < minimum}
        tokenizer = Tokenizer(models.BPE())
        # Digits first: the mixtures of text and random digits need one token per digit.
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[PAD, END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        extra = [f" {word}" for word, times in added.items() for _ in range(times)]
        tokenizer.train_from_iterator([*texts, *extra], trainer)
        if all(len(tokenizer.encode(f" {word}").ids) == 1 for word in FUNCTION_WORDS):
            return tokenizer, added
        minimum *= 2
    raise too_small


def save_tokenizer(tokenizer: "Tokenizer", folder: str | Path) -> None:
    """Write tokenizer.json and the tokenizer_config.json from which PreTrainedTokenizerFast loads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load_tokenizer(folder: str | Path) -> "Tokenizer":
    """Read the tokenizer that `save_tokenizer` wrote."""
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; make the text corpus first.")
    return Tokenizer.from_file(str(path))


def digits_in(tokenizer: "Tokenizer") -> dict[str, int]:
    """Return the ids of the synthetic `CHARACTERS` that are tokens of the text tokenizer; all digits are."""
    ids = {character: tokenizer.token_to_id(character) for character in CHARACTERS}
    return {character: number for character, number in ids.items() if number is not None and character != PAD}


def encode_texts(texts: Iterable[str], tokenizer: "Tokenizer") -> list[list[int]]:
    """Encode each text after a leading space, so that its first word is tokenized like all others."""
    return [encoding.ids for encoding in tokenizer.encode_batch([f" {text}" for text in texts])]


# --- Items ---


def shuffle_of(kind: str) -> str:
    """Return the shuffle that a text data set of this name undergoes."""
    if kind not in KINDS:
        raise UserError(f"there is no text data set {kind!r}; {nearest(kind, KINDS)}")
    return KINDS[kind]


def text_items(
    pools: Mapping[str, Sequence[Passage]],
    tokenizer: "Tokenizer",
    *,
    seed: int,
    train: int,
    validation: int,
    lengths: tuple[int, int],
    prompt: int,
    completion: int,
    shuffle: str = "none",
    units: str = "clauses",
    ngrams: Mapping[tuple[str, ...], int] | None = None,
) -> dict[str, list[TextItem]]:
    """Draw text items and, if asked, shuffle each of them.

    An item is the beginning of a passage, cut after a whole word at exactly its length from the list that all
    sets of the seed share. Its text begins with a space: then every word is tokenized alike wherever it
    stands, and all shuffles of an item have exactly its tokens in number. Training items are nested, and no
    prompt occurs twice, in training or validation.

    Parameters
    ----------
    pools: split -> passages longer than the longest item, from `passages`.
    shuffle: one of `SHUFFLES` (`patterns`, tab. 3, tab. 5), applied to the same items.
    units: what counts as a sentence in "sentences" and "sentences2". Items of 28-44 tokens hold one or two
        sentences, so at that size use "clauses", the stretches between punctuation marks.
    ngrams: counts from `count_ngrams`, for "top3grams" and "top2grams".
    """
    for name, value, known in (("shuffle", shuffle, SHUFFLES), ("units", units, UNITS)):
        if value not in known:
            raise UserError(f"there is no {name} {value!r}; {nearest(value, known)}")
    check_window(train, validation, lengths, prompt, completion)
    items: dict[str, list[TextItem]] = {}
    prompts: set[tuple[int, ...]] = set()
    for split, n in zip(SPLITS, (train, validation), strict=True):
        pool = pools[split]
        order = [int(index) for index in generator("text", seed, split).permutation(len(pool))]
        items[split] = []
        for number, length in enumerate(item_lengths(seed, n, *lengths, split=split)):
            ids = _take(pool, order, length, prompt, prompts)
            if ids is None:
                raise UserError(
                    f"the corpus gives only {number} {split} items of {lengths[0]}-{lengths[1]} tokens, "
                    f"not {n}; write a smaller number for {split}, shorter lengths, or more packages."
                )
            text = tokenizer.decode(list(ids))
            if shuffle != "none":
                rng = generator("text", shuffle, units, seed, split, number)
                text = " " + " ".join(permute(split_units(text, shuffle, units, ngrams), rng))
                ids = tuple(tokenizer.encode(text).ids)
            items[split].append(TextItem(text, ids, prompt))
    return items


def passages(rows: Sequence[Mapping[str, Any]], tokenizer: "Tokenizer", minimum: int) -> dict[str, list[Passage]]:
    """Join consecutive paragraphs of one module and split until a passage has more than `minimum` tokens.

    `rows` have the columns text, module, split. Returns split -> passages, each a list of (token id, starts a
    word). Shorter rests of a module are left out.
    """
    pools: dict[str, list[Passage]] = {split: [] for split in SPLITS}
    for split, pool in pools.items():
        chosen = [row for row in rows if row["split"] == split]
        for _, paragraphs in groupby(chosen, key=lambda row: row["module"]):
            passage: Passage = []
            for encoding in tokenizer.encode_batch([" " + row["text"] for row in paragraphs]):
                # "\u0120" is how byte-level BPE writes a space.
                passage += [(i, t[0] == "\u0120") for i, t in zip(encoding.ids, encoding.tokens, strict=True)]
                if len(passage) > minimum:
                    pool.append(passage)
                    passage = []
    return pools


def _take(
    pool: Sequence[Passage],
    order: list[int],
    length: int,
    prompt: int,
    prompts: set[tuple[int, ...]],
) -> tuple[int, ...] | None:
    """Take from `order` the first passage with a word boundary at `length` and a new prompt."""
    for place, index in enumerate(order):
        passage = pool[index]
        ids = tuple(token for token, _ in passage[:length])
        if passage[length][1] and ids[:prompt] not in prompts:
            prompts.add(ids[:prompt])
            del order[place]
            return ids
    return None


def count_ngrams(rows: Sequence[Mapping[str, Any]], shuffle: str) -> dict[tuple[str, ...], int]:
    """Count the word n-grams of the corpus by which a shuffle "top3grams" or "top2grams" ranks."""
    counts: Counter[tuple[str, ...]] = Counter()
    if shuffle.startswith("top"):
        for row in rows:
            words = row["text"].split()
            counts.update(zip(*(words[i:] for i in range(int(shuffle[3]))), strict=False))
    return counts


def split_units(
    text: str, shuffle: str, units: str = "clauses", ngrams: Mapping[tuple[str, ...], int] | None = None
) -> list[str]:
    """Split a text into the units that a shuffle moves as a whole (`patterns`, app. B.1).

    words: single words. sentences: `units`. sentences2: pairs of neighboring units. top3grams, top2grams: the
    more frequent half of the text's own n-grams stays together, read left to right, all other words are
    single. The paper ranks n-grams within its training set, here it is within the whole corpus: in a set of
    64 short items nearly all n-grams occur once, and an item would otherwise depend on how many there are.
    """
    words = text.split()
    if shuffle == "words":
        return words
    if shuffle.startswith("sentences"):
        parts = sentences(text) if units == "sentences" else CLAUSE_END.split(text.strip())
        size = 2 if shuffle == "sentences2" else 1
        return [" ".join(parts[i : i + size]) for i in range(0, len(parts), size)]
    n, counts = int(shuffle[3]), ngrams or {}
    grams = sorted(
        set(zip(*(words[i:] for i in range(n)), strict=False)), key=lambda gram: (-counts.get(gram, 0), gram)
    )
    kept = set(grams[: (len(grams) + 1) // 2])
    found, position = [], 0
    while position < len(words):
        size = n if tuple(words[position : position + n]) in kept else 1
        found.append(" ".join(words[position : position + size]))
        position += size
    return found


def permute(units: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return the units in a random order that differs from the given one whenever another order exists."""
    if len(set(units)) < 2:
        return list(units)
    while True:
        shuffled = [units[int(i)] for i in rng.permutation(len(units))]
        if shuffled != list(units):
            return shuffled


# --- Frozen embeddings ---


def embedding_matrix(
    streams: Iterable[Sequence[int]], vocabulary: int, width: int, *, window: int = 4, std: float = 0.02
) -> np.ndarray:
    """Embed tokens by their neighbors: `neighbor_vectors` with rows scaled to root mean square `std`.

    Laptop stand-in for the PCA-reduced GPT-2 embeddings of `patterns` (sec. 3.2), made without a network from
    a larger sample of the same kind of text. 0.02 is the scale at which GPT-2 embeddings are initialized.
    Returns (vocabulary, width) float32, the same on every call.
    """
    return rescale_rows(neighbor_vectors(streams, vocabulary, width, window=window), std)


def neighbor_vectors(streams: Iterable[Sequence[int]], vocabulary: int, width: int, *, window: int = 4) -> np.ndarray:
    """Factor the positive pointwise mutual information of tokens by a truncated SVD: U sqrt(S).

    Parameters
    ----------
    streams: token ids of texts; pairs do not reach across texts.
    window: tokens to each side that count as neighbors.

    Returns ------- (vocabulary, width) float64, columns by falling singular value, so that a narrower result
    is the first columns of a wider one. Rows of tokens that never occur are zero.
    """
    from scipy import sparse
    from scipy.sparse.linalg import svds

    if not 1 <= width < vocabulary:
        raise UserError(f"embedding width is {width}; write 1 to {vocabulary - 1}, below the vocabulary size.")
    left, right = [], []
    for stream in streams:
        ids = np.asarray(stream, dtype=np.int64)
        for distance in range(1, min(window, len(ids) - 1) + 1):
            left.append(ids[:-distance])
            right.append(ids[distance:])
    if not left:
        raise UserError("embedding: the text has no pair of neighboring tokens; give a larger sample.")
    i, j = np.concatenate(left), np.concatenate(right)
    ones = np.ones(len(i))
    counts = sparse.coo_matrix((ones, (i, j)), shape=(vocabulary, vocabulary)).tocsr()
    counts = (counts + counts.T).tocoo()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    information = np.log(counts.data * totals.sum() / (totals[counts.row] * totals[counts.col]))
    ppmi = sparse.csr_matrix((np.maximum(information, 0), (counts.row, counts.col)), shape=counts.shape)
    # A fixed starting vector makes ARPACK deterministic.
    vectors, values, _ = svds(ppmi, k=width, v0=np.full(vocabulary, vocabulary**-0.5))
    order = np.argsort(-values)
    return fix_signs(vectors[:, order] * np.sqrt(values[order]))


def rescale_rows(matrix: np.ndarray, std: float) -> np.ndarray:
    """Scale every row to root mean square `std`; rows of zeros become Gaussian. (rows, width) -> float32."""
    norms = np.sqrt((matrix**2).mean(axis=1, keepdims=True))
    noise = generator("embedding", "unseen").standard_normal(matrix.shape)
    unseen = norms < 1e-8 * norms.max()
    matrix = np.where(unseen, noise, matrix / np.where(unseen, 1, norms))
    matrix = matrix / np.sqrt((matrix**2).mean(axis=1, keepdims=True))
    return (std * matrix).astype(np.float32)


def pca_embedding(matrix: np.ndarray, width: int) -> np.ndarray:
    """Project centered rows on their first `width` principal components. (V, D) -> (V, width) float32.

    With the token embeddings of GPT-2 as `matrix` this is the frozen embedding of `patterns` (sec. 3.2).
    """
    if not 1 <= width <= matrix.shape[1]:
        raise UserError(f"PCA width is {width}; write 1 to {matrix.shape[1]}, the width of the embedding to reduce.")
    centered = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centered.T @ centered)  # eigenvalues ascend
    return fix_signs(centered @ vectors[:, ::-1][:, :width]).astype(np.float32)


def fix_signs(matrix: np.ndarray) -> np.ndarray:
    """Make the largest entry of each column positive, since singular vectors have no sign of their own."""
    largest = matrix[np.abs(matrix).argmax(axis=0), np.arange(matrix.shape[1])]
    return matrix * np.where(largest < 0, -1, 1)
