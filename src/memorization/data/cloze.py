"""Multiple-choice next-word questions from held-out text: the utility test of `tokenswap` at the sizes without network.

Stands in for the commonsense benchmarks of `tokenswap`, tab. 7. Those have answers outside the swap set, so the swap
can hardly change them; kind "content" asks the same here. Kind "function" asks for a word of the swap set, and is
where a swap could do harm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data.passages import HELD_OUT, SPACES, TRAIN, Corpus, prepare
from memorization.data.patterns import generator, nearest
from memorization.data.words import FUNCTION_WORDS, FUNCTION_WORDS_BY_CLASS
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KINDS = ("content", "function")
# Semi-modals are no class of their own: "used" is mostly a verb in documentation, and two words give no options.
CLASSES = {name.replace("_", "-"): words for name, words in FUNCTION_WORDS_BY_CLASS.items() if name != "semi_modals"}
WHOLE_CLASS = 4  # a class with fewer words takes its distractors from all function words
SHORTEST_WORD = 3  # characters of a content word
MIN_COUNT = 5  # times a content word occurs in the train split
NEAREST = 12  # distractors are drawn from so many words of the most similar frequency
WORD_END = (*SPACES, ".", ",", ";", ":", "!", "?", ")")  # begins the token after a whole word


@dataclass(frozen=True)
class Question:
    """A context and the options for the next word. The context begins a paragraph."""

    text: str  # of the context
    context_ids: tuple[int, ...]
    option_ids: tuple[int, ...]
    words: tuple[str, ...]  # the options
    answer: int  # place among the options
    group: str


@dataclass(frozen=True)
class Words:
    """The words that are one token with a leading space, W of them in order of their ids."""

    ids: np.ndarray  # (W,)
    words: tuple[str, ...]
    log_counts: np.ndarray  # (W,) log of 1 + occurrences as a whole word in the train split
    groups: tuple[str, ...]  # class of a function word, "content" for a content word
    occurs: np.ndarray  # (T,) bool: this token of the corpus is such a word, whole


def make_cloze(rows: Sequence[Mapping[str, Any]], tokenizer: "Tokenizer", **settings: Any) -> list[Question]:
    """Encode a corpus and make questions from it: `prepare`, then `draw_cloze` with these settings."""
    return draw_cloze(prepare(rows, tokenizer), **settings)


def draw_cloze(
    corpus: Corpus,
    *,
    seed: int,
    kind: str,
    questions: int,
    options: int = 4,
    context_tokens: tuple[int, int] = (16, 40),
    groups: Mapping[str, Sequence[str]] | None = None,
) -> list[Question]:
    """Draw questions, at most one from a paragraph of the splits validation and held_out.

    The context is the beginning of a paragraph up to a word that is one token with a leading space; that word is the
    answer. Distractors are drawn from the words of the same kind that are nearest in log frequency. Groups are as
    even in size as the corpus allows, see `count_groups`; questions come in random order.

    Parameters
    ----------
    kind: "content": answer and distractors are lower-case words of at least 3 letters outside the 110 function words
        that occur at least 5 times in the train split; no option occurs in the context, so that copying does not
        help. "function": the answer is one of the 110; distractors are of its grammatical class if that has at
        least 4 words, else any of the 110.
    options: number of options, with the answer.
    context_tokens: fewest and most tokens of the context.
    groups: for kind "content", group -> its packages; if None, each package is a group. The groups of kind "function"
        are the grammatical classes.

    Raises
    ------
    UserError: unknown kind or package; too few questions in the corpus.
    """
    if kind not in KINDS:
        raise UserError(f"there is no kind {kind!r}; {nearest(kind, KINDS)}")
    lo, hi = context_tokens
    if not 1 <= lo <= hi or options < 2 or questions < 1:
        raise UserError(
            f"questions {questions}, options {options}, context_tokens {lo}-{hi} make no questions; write at least "
            "1 question, 2 options, and context_tokens [fewest, most] from 1."
        )
    package_group = _package_groups(corpus, groups)
    words = find_words(corpus, kind)
    rng = generator("cloze", seed, kind)
    # group -> paragraph -> places of possible answers
    places: dict[str, dict[int, list[int]]] = {}
    number = {token: index for index, token in enumerate(words.ids.tolist())}
    for paragraph in map(int, rng.permutation(len(corpus.splits))):
        if corpus.splits[paragraph] not in HELD_OUT:
            continue
        begin, end = (int(place) for place in corpus.paragraphs[paragraph : paragraph + 2])
        inside = np.flatnonzero(words.occurs[begin + lo : min(begin + hi + 1, end)]) + begin + lo
        for place in inside.tolist():
            token = int(corpus.ids[place])
            group = words.groups[number[token]]
            if kind == "content":
                if corpus.packages[paragraph] not in package_group or token in corpus.ids[begin:place]:
                    continue
                group = package_group[corpus.packages[paragraph]]
            places.setdefault(group, {}).setdefault(paragraph, []).append(place)
    chosen = _balance(places, questions, rng)
    made = []
    for group, paragraph, place in chosen:
        context = corpus.ids[corpus.paragraphs[paragraph] : place]
        answer = number[int(corpus.ids[place])]
        others = _distractors(words, answer, set(context.tolist()) if kind == "content" else set(), options - 1, rng)
        shown = [int(index) for index in rng.permutation([answer, *others])]
        made.append(
            Question(
                text=corpus.tokenizer.decode(context.tolist(), skip_special_tokens=False),
                context_ids=tuple(context.tolist()),
                option_ids=tuple(int(words.ids[index]) for index in shown),
                words=tuple(words.words[index] for index in shown),
                answer=shown.index(answer),
                group=group,
            )
        )
    return made


def find_words(corpus: Corpus, kind: str) -> Words:
    """Find the words of a kind and where they occur whole: not as the first piece of a longer word."""
    vocabulary = corpus.tokenizer.get_vocab()
    classes = {word: name for name, members in CLASSES.items() for word in members}
    size = corpus.tokenizer.get_vocab_size()
    ends = np.zeros(size, dtype=bool)
    found: dict[int, tuple[str, str]] = {}
    for token, number in vocabulary.items():
        ends[number] = token.startswith(WORD_END)
        word = token[1:] if token.startswith(SPACES) else ""
        if kind == "function" and word in classes:
            found[number] = (word, classes[word])
        elif kind == "content" and _is_content(word):
            found[number] = (word, "content")
    followed = np.append(ends[corpus.ids[1:]], True)
    followed[corpus.paragraphs[1:] - 1] = True  # a paragraph ends with a whole word
    ids = np.array(sorted(found), dtype=np.int64)
    occurs = followed & np.isin(corpus.ids, ids)
    in_train = np.repeat([split in TRAIN for split in corpus.splits], np.diff(corpus.paragraphs))
    counts = np.bincount(corpus.ids[occurs & in_train], minlength=size)
    if kind == "content":
        ids = ids[counts[ids] >= MIN_COUNT]
        occurs &= np.isin(corpus.ids, ids)
    return Words(
        ids=ids,
        words=tuple(found[int(number)][0] for number in ids),
        log_counts=np.log1p(counts[ids]),
        groups=tuple(found[int(number)][1] for number in ids),
        occurs=occurs,
    )


def count_groups(questions: Sequence[Question]) -> dict[str, int]:
    """Count the questions of each group, for a data card; groups in alphabetical order."""
    counts: dict[str, int] = {}
    for question in questions:
        counts[question.group] = counts.get(question.group, 0) + 1
    return dict(sorted(counts.items()))


def _is_content(word: str) -> bool:
    return (
        len(word) >= SHORTEST_WORD
        and word.isascii()
        and word.isalpha()
        and word.islower()
        and word not in FUNCTION_WORDS
    )


def _balance(
    places: Mapping[str, Mapping[int, Sequence[int]]], questions: int, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """Choose (group, paragraph, place), each paragraph once, groups as even as possible.

    Rare groups choose first, each up to an equal share of what is still to be filled; then whoever has more fills up.
    """
    used: set[int] = set()
    chosen: list[tuple[str, int, int]] = []

    def choose(group: str, most: int) -> None:
        for paragraph, answers in places[group].items():
            if most <= 0:
                break
            if paragraph not in used:
                used.add(paragraph)
                chosen.append((group, paragraph, int(rng.choice(answers))))
                most -= 1

    by_size = sorted(places, key=lambda group: (len(places[group]), group))
    for done, group in enumerate(by_size):
        choose(group, (questions - len(chosen)) // (len(by_size) - done))
    for group in by_size:
        choose(group, questions - len(chosen))
    if len(chosen) < questions:
        raise UserError(
            f"the corpus gives only {len(chosen)} questions, not {questions}; write questions: {len(chosen)} or "
            "a wider range of context_tokens."
        )
    return [chosen[int(index)] for index in rng.permutation(len(chosen))]


def _distractors(words: Words, answer: int, excluded: set[int], count: int, rng: np.random.Generator) -> list[int]:
    """Draw distractors for words[answer] whose ids are not excluded, from the nearest in frequency."""
    group = words.groups[answer]
    members = [index for index, other in enumerate(words.groups) if other == group]
    if len(members) < max(WHOLE_CLASS, count + 1):
        members = list(range(len(words.ids)))
    pool = [index for index in members if index != answer and int(words.ids[index]) not in excluded]
    if len(pool) < count:
        raise UserError(f"only {len(pool)} words could be distractors, not {count}; write fewer options.")
    pool.sort(key=lambda index: (abs(words.log_counts[index] - words.log_counts[answer]), index))
    near = pool[: max(NEAREST, count)]
    return [near[int(index)] for index in rng.choice(len(near), size=count, replace=False)]


def _package_groups(corpus: Corpus, groups: Mapping[str, Sequence[str]] | None) -> dict[str, str]:
    """Return package -> group."""
    known = sorted(set(corpus.packages))
    if groups is None:
        return {package: package for package in known}
    owner: dict[str, str] = {}
    for group, packages in groups.items():
        for package in packages:
            if package not in known:
                raise UserError(f"group {group!r}: the corpus has no package {package!r}; {nearest(package, known)}")
            if owner.setdefault(package, group) != group:
                raise UserError(f"groups {owner[package]!r} and {group!r} share {package!r}; write it in one of them.")
    return owner
