"""Sets for classification with label noise (`layernorm`, sec. 3.1 and app. F.1), and the text their models read before.

One set is one `spec`, the `smk.params.set` of the script make_labelled. Keys of every kind:

    name          of the set, the column `data` of the measurements
    kind          a key of `KINDS`
    noisy_class   name of the class from which all mislabelled items will be taken; the labels stored here are right
    seeds         number of seeds (read by the script)
    tokenizer     asset whose tokenizer encodes the texts, or None
    assets        folder of all assets, where one is needed
    folders       names of the stored folders, in the order of `folders_of`; by default what that says

and of kind `docstrings`:

    classes                 package -> share of the items, e.g. {sympy: 0.9, numpy: 0.1}; numbered in this order
    tokens                  most tokens of an item, with its special tokens
    train, validation       numbers of items
    pretraining             number of sequences of the pre-training text; all there are if not given
    pretraining_validation  number of further ones that are held out

The other kinds list theirs where they are: `memorization.data.digits` and `memorization.data.labelled_public`. No label
is noisy here: which ones are wrong is up to a run, so that all arms share a stored set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.data.patterns import SPLITS, generator, nearest, resolve
from memorization.data.text import encode_texts, load_tokenizer
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Rows = list[dict[str, Any]]
Made = dict[str, tuple[dict[str, Rows], dict[str, Any]]]  # folder -> (split -> rows, facts for the card)

KINDS = {
    "docstrings": "memorization.data.labelled:docstrings",
    "digits": "memorization.data.digits:digits",
    "public_text": "memorization.data.labelled_public:public_text",
    "public_images": "memorization.data.labelled_public:public_images",
}
PRETRAINED_HERE = ("docstrings", "digits")  # kinds that come with a set to pre-train on
# Ids of the models that are trained from nothing: these three, then the tokens of the corpus, then a word per package,
# the classes first.
PAD, CLS, SEP, FIRST = 0, 1, 2, 3
SHORTEST = 8  # tokens; shorter paragraphs and rests say too little
SAME_START = 16  # tokens; of paragraphs that begin alike one is kept, since short items would be the same


# --- All kinds ---


def make_set(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Make the folders of one set for one seed.

    Parameters
    ----------
    spec: see the top of this module.
    inputs: paths: `corpus` (parquet of the rule make_text) and `tokenizer` (its folder), for kind `docstrings`.

    Returns
    -------
    For every folder of `folders_of` the rows of the splits "train" and "validation", and facts: kind ("text" or
    "images"), classes (names by class), noisy_class (number), class_items (split -> items of every class); of texts
    also pad, cls, mask (ids, None where the tokenizer has none), label_tokens (id of every class's word), vocabulary
    (number of ids) and tokens (those of the longest item); of images size ([height, width], None if it varies) and
    channels.
    """
    kind = spec["kind"]
    if kind not in KINDS:
        raise UserError(f"{spec['name']}: there is no kind {kind!r} of labelled set; {nearest(kind, KINDS)}")
    made = resolve(KINDS[kind])(spec, seed, inputs)
    common = {"seed": seed, "source": "layernorm, sec. 3.1 and app. F.1", "license": "other"}
    return {folder: (splits, {"name": folder, **common, **facts}) for folder, (splits, facts) in made.items()}


def folders_of(spec: Mapping[str, Any]) -> list[str]:
    """Return the folders that `make_set` makes: the set, and <name>_pretraining where the kind has one.

    Encoded with the tokenizer of an asset, a set is another folder, <name>_<asset>; a public model is pre-trained.
    """
    if spec.get("folders"):
        return list(spec["folders"])
    if spec.get("tokenizer"):
        return [f"{spec['name']}_{spec['tokenizer']}"]
    return [spec["name"], *([f"{spec['name']}_pretraining"] if spec["kind"] in PRETRAINED_HERE else [])]


def class_facts(spec: Mapping[str, Any], classes: Sequence[str], splits: Mapping[str, Rows]) -> dict[str, Any]:
    """Return names, noisy class and counts; UserError if the noisy class is none or has no training item."""
    name = spec["noisy_class"]
    if name not in classes:
        raise UserError(f"{spec['name']}: noisy_class is {name!r}; {nearest(name, list(classes))}")
    counts = {
        split: np.bincount([one["label"] for one in rows], minlength=len(classes)).tolist()
        for split, rows in splits.items()
    }
    noisy = list(classes).index(name)
    if not counts["train"][noisy]:
        raise UserError(f"{spec['name']}: no training item is of the noisy class {name!r}; write a larger `train`.")
    return {"classes": list(classes), "noisy_class": noisy, "class_items": counts}


def enough(spec: Mapping[str, Any], key: str, there: int) -> int:
    """Return how many items the key asks for, all that are there if it is not given; UserError if there are fewer."""
    wanted = spec.get(key) or there
    if wanted > there:
        raise UserError(f"{spec['name']}: {key} is {wanted}, there are {there}; write {there} or less.")
    return int(wanted)


def largest_remainder(total: int, shares: Sequence[float]) -> list[int]:
    """Share out `total` in proportion to `shares`, as whole numbers whose sum is exactly `total`."""
    if min(shares) < 0 or not sum(shares) > 0:
        raise UserError(f"shares {list(shares)}: write numbers from 0 up of which one is above 0.")
    exact = total * np.asarray(shares, dtype=float) / sum(shares)
    # against 7.999999: a share that is a whole number but for rounding keeps it
    parts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - parts), kind="stable")
    parts[order[: total - int(parts.sum())]] += 1
    return [int(part) for part in parts]


# --- Paragraphs of documentation ---


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of the corpus; ids are those of the corpus's own tokenizer."""

    text: str
    package: str
    split: str
    ids: tuple[int, ...]


def docstrings(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Which package is a paragraph of documentation from? And paragraphs of all packages to pre-train on.

    Stands in for the text sets of `layernorm` (app. F.1) where there is no network. The corpus has no paragraph that
    names one of its packages, so no class is given away. Items are the beginnings of paragraphs; they are from its
    splits validation and held_out, the pre-training text from train, and no paragraph is in two of the splits here.
    With the tokenizer of an asset the same paragraphs are encoded by it, and there is no pre-training text.
    """
    paragraphs, tokenizer = read_corpus(str(inputs["corpus"]), str(inputs["tokenizer"]))
    chosen = draw_paragraphs(spec, seed, paragraphs)
    classes = list(spec["classes"])
    if spec.get("tokenizer"):
        from memorization.data.labelled_public import encoded, reader_of

        reader = reader_of(spec["assets"], spec["tokenizer"])
        splits = {
            split: encoded(reader, [(one.text, classes.index(one.package)) for one in items], spec["tokens"])
            for split, items in chosen.items()
        }
        facts = reader.facts(classes)
    else:
        splits = {split: own_rows(items, classes, spec["tokens"], tokenizer) for split, items in chosen.items()}
        first_word = tokenizer.get_vocab_size() + FIRST
        facts = {
            **own_ids(tokenizer, paragraphs),
            "label_tokens": list(range(first_word, first_word + len(classes))),
        }
    facts = {"kind": "text", "language": "en", **class_facts(spec, classes, splits), **facts, "tokens": longest(splits)}
    names = folders_of(spec)
    made = {names[0]: (splits, facts)}
    if len(names) > 1:
        text = pretraining_text(spec, seed, paragraphs, tokenizer)
        shared = {**own_ids(tokenizer, paragraphs), "packages": package_words(classes, paragraphs)}
        made[names[1]] = (text, {"kind": "text", "language": "en", **shared, "tokens": longest(text)})
    return made


@lru_cache(maxsize=1)
def read_corpus(corpus: str, tokenizer: str) -> tuple[tuple[Paragraph, ...], "Tokenizer"]:
    """Read and encode the corpus, once for all seeds."""
    import pyarrow.parquet as pq

    rows = pq.read_table(corpus, columns=["text", "package", "split"]).to_pylist()
    loaded = load_tokenizer(tokenizer)
    ids = encode_texts([row["text"] for row in rows], loaded)
    paragraphs = tuple(
        Paragraph(row["text"], row["package"], row["split"], tuple(tokens))
        for row, tokens in zip(rows, ids, strict=True)
    )
    return paragraphs, loaded


def draw_paragraphs(spec: Mapping[str, Any], seed: int, paragraphs: Sequence[Paragraph]) -> dict[str, list[Paragraph]]:
    """Draw the paragraphs of both splits, with the exact number of every class, in random order."""
    shares = dict(spec["classes"])
    check(spec, shares)
    known = sorted({one.package for one in paragraphs})
    for package in shares:
        if package not in known:
            raise UserError(f"{spec['name']}: the corpus has no package {package!r}; {nearest(package, known)}")
    pools: dict[str, list[Paragraph]] = {package: [] for package in shares}
    seen: set[tuple[int, ...]] = set()
    for one in paragraphs:
        if one.package in pools and one.split != "train" and len(one.ids) >= SHORTEST:
            start = one.ids[: min(SAME_START, spec["tokens"] - 1)]
            if start not in seen:
                seen.add(start)
                pools[one.package].append(one)
    counts = {split: largest_remainder(spec[split], list(shares.values())) for split in SPLITS}
    drawn: dict[str, list[Paragraph]] = {split: [] for split in SPLITS}
    for number, (package, pool) in enumerate(pools.items()):
        wanted = [counts[split][number] for split in SPLITS]
        if sum(wanted) > len(pool):
            raise UserError(
                f"{spec['name']}: the corpus has {len(pool)} paragraphs of {package!r} that are not for pre-training, "
                f"{wanted[0]} + {wanted[1]} are asked for; lower `train`, `validation` or the share of {package!r}."
            )
        order = generator("labelled", spec["name"], seed, package).permutation(len(pool))
        for split, places in zip(SPLITS, np.split(order, [wanted[0], sum(wanted)])[:2], strict=True):
            drawn[split] += [pool[int(place)] for place in places]
    for split, items in drawn.items():
        order = generator("labelled", spec["name"], seed, split).permutation(len(items))
        drawn[split] = [items[int(place)] for place in order]
    return drawn


def check(spec: Mapping[str, Any], shares: Mapping[str, float]) -> None:
    """UserError for numbers that make no set."""
    if spec["tokens"] < SHORTEST + 1:
        raise UserError(f"{spec['name']}: tokens is {spec['tokens']}; write at least {SHORTEST + 1}.")
    if abs(sum(shares.values()) - 1) > 0.005:
        raise UserError(f"{spec['name']}: the shares of classes sum to {sum(shares.values()):.3f}; write shares of 1.")
    for split in SPLITS:
        if spec[split] < len(shares):
            raise UserError(f"{spec['name']}: {split} is {spec[split]}; write at least {len(shares)}, one per class.")


def pretraining_text(
    spec: Mapping[str, Any], seed: int, paragraphs: Sequence[Paragraph], tokenizer: "Tokenizer"
) -> dict[str, Rows]:
    """Cut the corpus's train split into sequences, each with the word of its package behind it.

    Predicting that word is what teaches a small model more than grammar: without it, what it learns from a few hundred
    thousand tokens is of no use for the classes. Whole paragraphs are held out for validation.
    """
    words = package_words(list(spec["classes"]), paragraphs)
    first_word = tokenizer.get_vocab_size() + FIRST
    step, held_out = spec["tokens"] - 1, spec["pretraining_validation"]
    cut = []
    for one in paragraphs:
        word = first_word + words.index(one.package)
        starts = [one.ids[start : start + step] for start in range(0, len(one.ids), step)]
        pieces = [(word, piece) for piece in starts if len(piece) >= SHORTEST]
        if one.split == "train" and pieces:
            cut.append(pieces)
    total = sum(map(len, cut))
    if not 0 < held_out < total / 2:
        raise UserError(
            f"{spec['name']}: the corpus gives {total} sequences of at most {spec['tokens']} tokens; write a "
            f"`pretraining_validation` from 1 to {max(1, (total - 1) // 2)}."
        )
    order = generator("labelled", spec["name"], seed, "pretraining").permutation(len(cut))
    splits: dict[str, list[tuple[int, tuple[int, ...]]]] = {split: [] for split in SPLITS}
    for place in order:
        split = "validation" if len(splits["validation"]) < held_out else "train"
        splits[split] += cut[int(place)]
    # what the last paragraph has too much is left out, so that no paragraph is in both
    splits["validation"] = splits["validation"][:held_out]
    splits["train"] = splits["train"][: enough(spec, "pretraining", len(splits["train"]))]
    rows = {}
    for split, sequences in splits.items():
        texts = tokenizer.decode_batch([list(ids) for _, ids in sequences])
        rows[split] = [
            store.row(item, text, [*shifted(ids), word], 0, 0)
            for item, (text, (word, ids)) in enumerate(zip(texts, sequences, strict=True))
        ]
    return rows


def own_rows(items: Sequence[Paragraph], classes: Sequence[str], tokens: int, tokenizer: "Tokenizer") -> Rows:
    """Rows of the beginnings of paragraphs, in the ids of the models that are trained from nothing."""
    starts = [one.ids[: tokens - 1] for one in items]
    texts = tokenizer.decode_batch([list(ids) for ids in starts])
    return [
        store.text_row(item, text, shifted(ids), classes.index(one.package))
        for item, (one, ids, text) in enumerate(zip(items, starts, texts, strict=True))
    ]


def shifted(ids: Sequence[int]) -> list[int]:
    """The ids of the corpus's tokenizer, moved behind the special ones, between [CLS] and [SEP]."""
    return [CLS, *(token + FIRST for token in ids), SEP]


def package_words(classes: Sequence[str], paragraphs: Sequence[Paragraph]) -> list[str]:
    """Packages in the order of their words: the classes, then the others."""
    return [*classes, *sorted({one.package for one in paragraphs} - set(classes))]


def own_ids(tokenizer: "Tokenizer", paragraphs: Sequence[Paragraph]) -> dict[str, Any]:
    """Special ids, and the number of ids with a word per package."""
    words = len({one.package for one in paragraphs})
    size = tokenizer.get_vocab_size() + FIRST + words
    return {"pad": PAD, "cls": CLS, "sep": SEP, "mask": None, "vocabulary": size}


def longest(splits: Mapping[str, Rows]) -> int:
    """Tokens of the longest item."""
    return max(one["length"] for rows in splits.values() for one in rows)
