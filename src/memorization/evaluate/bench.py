"""What the decoding arms of one job share: models and tokenizers, loaded once, and the data they are measured on."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.errors import UserError
from memorization.methods.swap_set import SwapSet, word_pieces
from memorization.models.build import load
from memorization.specs import ArmGroupSpec, ArmSpec, ModelRef

if TYPE_CHECKING:
    import torch

KEPT_MODELS = 4  # arms stand in order of their models, so few are needed at a time


@dataclass(frozen=True)
class Passages:
    """N passages: ids (N, prefix + suffix) int64 in the main model's tokens, and the domain of each."""

    ids: np.ndarray
    domain: np.ndarray
    prefix: int

    @property
    def prompts(self) -> np.ndarray:
        """(N, prefix) ids."""
        return self.ids[:, : self.prefix]

    @property
    def suffixes(self) -> np.ndarray:
        """(N, suffix) ids."""
        return self.ids[:, self.prefix :]


@dataclass
class Bench:
    """Models, tokenizers and data of one job. root: `results/<scale>`."""

    spec: ArmGroupSpec
    root: Path
    models: dict[str, Any] = field(default_factory=dict)
    tokenizers: dict[str, Any] = field(default_factory=dict)
    sets: dict[str, SwapSet] = field(default_factory=dict)

    @cached_property
    def device(self) -> "torch.device":
        """Where models run."""
        import torch

        torch.set_num_threads(self.spec.threads)
        if self.spec.device == "cuda" and not torch.cuda.is_available():
            raise UserError("compute.device is cuda, but torch sees no GPU here: write `auto` or `cpu`")
        on_gpu = self.spec.device != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if on_gpu else "cpu")

    @property
    def data(self) -> Path:
        """Folder of the paper's data."""
        return self.root / "data" / self.spec.paper

    def folder(self, ref: ModelRef) -> Path:
        """Where a model is."""
        return self.root / "models" / ref.run if ref.run else self.root.parent / "assets" / ref.asset

    def model(self, ref: ModelRef) -> Any:
        """A model in evaluation mode. Weights of bfloat16 jobs are read as bfloat16, of others as float32."""
        import torch

        if ref.name not in self.models:
            for old in list(self.models)[: max(0, len(self.models) - KEPT_MODELS + 1)]:
                del self.models[old]
            kind = torch.bfloat16 if self.spec.precision == "bfloat16" and self.device.type == "cuda" else torch.float32
            model: Any = load(self.folder(ref))
            if ref.asset:
                without_padding(model, self.tokenizer(ref))
            self.models[ref.name] = model.to(self.device, kind).eval()
        return self.models[ref.name]

    def tokenizer(self, ref: ModelRef) -> Any:
        """A model's tokenizer, one object for all models that share it."""
        from transformers import AutoTokenizer

        folder = self.data / ref.tokenizer if ref.tokenizer else self.root.parent / "assets" / ref.asset
        if str(folder) not in self.tokenizers:
            self.tokenizers[str(folder)] = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return self.tokenizers[str(folder)]

    def same_tokens(self, one: ModelRef, other: ModelRef) -> bool:
        """Whether two models read the same token ids."""
        first, second = self.tokenizer(one), self.tokenizer(other)
        return first is second or first.get_vocab() == second.get_vocab()

    def stored_ids(self, ref: ModelRef, folder: str, split: str, length: int | None = None) -> list[list[int]]:
        """Sequences of a data set in a model's tokens: as stored, or for a public model encoded from their text.

        length: every sequence must have so many tokens, and is cut to them.
        """
        rows = store.read_columns(self.data / folder / "dataset" / str(self.spec.seed), split, ["text", "input_ids"])
        if ref.tokenizer == "tokenizer":
            sequences = rows["input_ids"]
        else:
            encode = self.tokenizer(ref)
            sequences = [encode(text, add_special_tokens=False).input_ids for text in rows["text"]]
        if length is not None:
            short = [len(one) for one in sequences if len(one) < length]
            if short:
                raise UserError(
                    f"{folder}: {len(short)} texts have fewer than {length} tokens of {ref.name} (the shortest "
                    f"{min(short)}): write a smaller prefix or suffix"
                )
            sequences = [one[:length] for one in sequences]
        return sequences

    def lengths(self, arm: ArmSpec | None) -> tuple[int, int]:
        """Tokens of prefix and suffix of an arm's passages; the job's where it has none of its own."""
        own = (arm.prefix, arm.suffix) if arm else (None, None)
        return own[0] or self.spec.prefix, own[1] or self.spec.suffix

    def passages(
        self, ref: ModelRef, most: int | None = None, *, arm: ArmSpec | None = None, everything: bool = False
    ) -> Passages:
        """Passages of the seed in a model's tokens, domain after domain: those of the job, or of an arm.

        most: only the first ones of each domain. everything: also those that are not decoded at all because there are
        more than the spec says.
        """
        prefix, suffix = self.lengths(arm)
        domains = (arm.domains if arm else None) or self.spec.domains
        found = {name: self.stored_ids(ref, f"passages_{name}", "train", prefix + suffix) for name in domains}
        if not everything:
            found = {name: spread(rows, domains[name])[:most] for name, rows in found.items()}
        ids = np.array([one for rows in found.values() for one in rows], dtype=np.int64)
        domain = np.repeat(list(found), [len(rows) for rows in found.values()])
        return Passages(ids, domain.astype(object), prefix)

    def questions(self, ref: ModelRef | None = None) -> list[Any]:
        """Next-word questions of the seed with their kind: (kind, Question), in a model's tokens.

        For a public model they are encoded from their text; those with an option that is not one token are left out.
        """
        import pandas as pd

        from memorization.data.cloze import Question

        rows = pd.read_parquet(self.data / "cloze" / "questions.parquet").to_dict("records")
        mine: list[dict[Any, Any]] = [row for row in rows if row["seed"] == self.spec.seed]
        if ref and ref.tokenizer != "tokenizer":
            mine = [row for row in (in_tokens_of(row, self.tokenizer(ref)) for row in mine) if row]
        return [
            (
                row["kind"],
                Question(
                    text=row["text"],
                    context_ids=tuple(map(int, row["context_ids"])),
                    option_ids=tuple(map(int, row["option_ids"])),
                    words=tuple(row["words"]),
                    answer=int(row["answer"]),
                    group=row["group"],
                ),
            )
            for row in mine
        ]

    def words(self, arm: ArmSpec) -> SwapSet:
        """The swap set of an arm, made once."""
        key = f"{arm.model.tokenizer or arm.model.asset}/{arm.words}"
        if key not in self.sets:
            self.sets[key] = self.make_words(arm)
        return self.sets[key]

    def make_words(self, arm: ArmSpec) -> SwapSet:
        """The swap set of an arm. Content words are drawn from the background of the seed: tokens that begin a word, of
        letters, and are not among the 136 function words; some of them are also beginnings of longer words.
        """
        name = arm.words
        if not name.startswith("content-"):
            return SwapSet.named(name)
        counts = Counter(i for one in self.stored_ids(arm.model, "background", "train") for i in one)
        tokenizer = self.tokenizer(arm.model)
        functions = SwapSet.named("english-136")
        spoken = {i: tokenizer.decode([i]) for i in counts}
        content = [
            (word[1:], counts[i])
            for i, word in sorted(spoken.items())
            if re.fullmatch(r" [A-Za-z]{2,}", word) and word[1:].lower() not in functions
        ]
        order = np.random.default_rng([self.spec.seed, 0xC0]).permutation(len(content))
        if name == "content-matched":
            members = set(SwapSet.named("english-110").coverage(tokenizer).main_ids)
            return SwapSet.custom(matched(content, order, sum(counts[i] for i in members)), name)
        size = int(name.removeprefix("content-"))
        if size > len(content):
            raise UserError(f"{name}: the text has {len(content)} content words of one token: write a smaller number")
        return SwapSet.custom([content[int(i)][0] for i in order[:size]], name)


def spread(rows: list[Any], count: int) -> list[Any]:
    """`count` of the rows, evenly spread, so that every half and quarter has its share; all if there are fewer."""
    return [rows[i * len(rows) // count] for i in range(count)] if count < len(rows) else rows


def without_padding(model: Any, tokenizer: Any) -> None:
    """Cut rows of the embedding and head that stand for no token.

    Published checkpoints pad them to a round number, which differs between sizes of one family: Pythia's 6.9B has
    50,432 and 2.8B 50,304 rows for the same 50,277 tokens. CP-Fuse and speculative decoding want equal numbers.
    """
    tokens = max(tokenizer.get_vocab().values()) + 1
    if model.get_input_embeddings().weight.shape[0] > tokens:
        model.resize_token_embeddings(tokens, mean_resizing=False)


def in_tokens_of(row: dict[Any, Any], tokenizer: Any) -> dict[Any, Any] | None:
    """A stored question in the tokens of another tokenizer; None where an option is not one token there."""
    options = [word_pieces(tokenizer, word) for word in row["words"]]
    if any(len(ids) != 1 for ids in options) or len({ids[0] for ids in options}) < len(options):
        return None
    context = tokenizer(row["text"], add_special_tokens=False).input_ids
    return {**row, "context_ids": context, "option_ids": [ids[0] for ids in options]}


def matched(words: list[tuple[str, int]], order: np.ndarray, target: int) -> list[str]:
    """Words taken in `order` while their counts add up to at most `target`; one that would exceed it is passed over."""
    chosen, total = [], 0
    for place in order:
        word, count = words[int(place)]
        if total + count <= target:
            chosen.append(word)
            total += count
    return chosen


def pieces(tokenizer: Any, ids: np.ndarray, marked: np.ndarray) -> str:
    """JSON list of [text, marked] of a sequence, token by token; bytes of one character stay together."""
    found, start = [], 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[start:end].tolist())
        if end == len(ids) or not text.endswith("\ufffd"):
            found.append([text, bool(marked[start:end].any())])
            start = end
    return json.dumps(found)
