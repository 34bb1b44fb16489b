"""Infini-gram probabilities from the package `infini_gram` and from a public engine, at the paper's scale.

Both have the methods of `memorization.probes.infini_gram.InfiniGram` for probabilities and the same way of counting.
`geometry` (section 2.2) asked the public engine with the index `v4_piletrain_llama`.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from memorization.errors import UserError
from memorization.probes.infini_gram import (
    LARGEST_VOCABULARY,
    Engine,
    Ids,
    Probabilities,
    Probability,
    check_range,
    join,
    pairs_of,
    together,
)


class LocalEngine(Engine):
    """The engine of the package `infini_gram` over an index on disk: a downloaded one, or one that it built.

    Parameters
    ----------
    folder: of the index, or several that together are one corpus.
    end_token: id of the tokenizer's end token.
    vocabulary: ids are below it. token_type: of the index, u8, u16 or u32.

    Raises
    ------
    UserError: the package is not installed; a folder holds no index.
    """

    def __init__(
        self,
        folder: str | Path | Sequence[str | Path],
        *,
        end_token: int,
        vocabulary: int = 65535,
        token_type: str = "u16",
    ) -> None:
        folders = [Path(folder)] if isinstance(folder, str | Path) else [Path(name) for name in folder]
        for path in folders:  # the package would end the process
            if not all(any(path.glob(f"{name}.*")) for name in ("tokenized", "table", "offset")):
                raise UserError(
                    f"{path} holds no infini-gram index; give a folder with tokenized.0, table.0 and offset.0."
                )
        try:
            from infini_gram.engine import InfiniGramEngine
        except ImportError:
            raise UserError("LocalEngine needs the package infini_gram; run: pip install infini-gram==2.6.0") from None
        self.vocabulary = vocabulary
        names = [str(path) for path in folders]
        # reading ahead costs threads at every query and pays only on a cold, slow disk; the public engine does without
        ahead = dict.fromkeys(("ds_prefetch_depth", "sa_prefetch_depth", "od_prefetch_depth"), 0)
        self._engine = InfiniGramEngine(names, end_token, vocab_size=vocabulary, token_dtype=token_type, **ahead)

    def probability(self, context: Ids, token: int) -> Probability:
        """Probability of a token behind a context, which may be empty."""
        ids = join(context, [token])
        check_range(ids, self.vocabulary)
        return _answer(self._engine.infgram_prob(prompt_ids=ids[:-1].tolist(), cont_id=int(token)), "the index")


class InfiniGramAPI(Engine):
    """A public infini-gram engine, asked by HTTP POST, one query a token (documentation: infini-gram.io/api_doc).

    Ids are those of the index's tokenizer without begin and end tokens: of Llama-2 for the name's ending "_llama".
    Answers go into the cache at once, so a stopped job asks only for what is missing.

    Parameters
    ----------
    index: name of the index.
    endpoint: address.
    cache: file with one JSON object a line; without it answers are kept in memory only.
    timeout: seconds to wait for an answer; retries: further tries; wait: seconds before the first of them, doubled
        before each other. workers: queries under way at once in `probabilities` and `answers`.
    longest: tokens that the engine takes in a query; longer contexts lose their first ones.

    Raises
    ------
    UserError: the engine refuses a query, as it does for an unknown index; no answer after all tries; the cache holds
        something else.
    """

    def __init__(
        self,
        index: str = "v4_piletrain_llama",
        endpoint: str = "https://api.infini-gram.io/",
        *,
        cache: str | Path | None = None,
        timeout: float = 30.0,
        retries: int = 6,
        wait: float = 1.0,
        workers: int = 1,
        longest: int = 500,
    ) -> None:
        self.index, self.endpoint, self.cache = index, endpoint, Path(cache) if cache is not None else None
        self.timeout, self.retries, self.wait = timeout, retries, wait
        self.workers, self.longest = workers, longest
        self._lock = threading.Lock()
        self._known = self._read_cache()

    def probability(self, context: Ids, token: int) -> Probability:
        """Probability of a token behind a context, which may be empty."""
        ids = tuple(join(context, [token]).tolist()[-self.longest :])
        check_range(np.array(ids), LARGEST_VOCABULARY)
        if ids not in self._known:
            found = _answer(self._ask(ids), f"index {self.index!r} at {self.endpoint}")
            with self._lock:
                self._known[ids] = found
                if self.cache is not None:
                    line = {"index": self.index, "query_ids": ids, **found._asdict()}
                    with self.cache.open("a") as file:
                        file.write(json.dumps(line) + "\n")
        return self._known[ids]

    def probabilities(self, contexts: Sequence[Ids], tokens: Ids) -> Probabilities:
        """`probability` of every pair (contexts[i], tokens[i])."""
        with ThreadPoolExecutor(self.workers) as pool:
            tasks = [
                pool.submit(self.probability, context, int(token)) for context, token in pairs_of(contexts, tokens)
            ]
            try:
                return together([task.result() for task in tasks])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _ask(self, ids: tuple[int, ...]) -> dict[str, Any]:
        """The engine's answer as it came; tries again after what may pass."""
        body = json.dumps({"index": self.index, "query_type": "infgram_prob", "query_ids": ids}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "memorization"}
        trouble: Any = None
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                request = urllib.request.Request(self.endpoint, data=body, headers=headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return dict(json.load(response))
            except urllib.error.HTTPError as error:
                trouble = error
                if error.code < 500 and error.code not in (408, 429):  # the query itself is wrong
                    return {"error": _reason(error)}
            except (OSError, HTTPException, ValueError) as error:  # not reached, cut off, or no JSON
                trouble = error
        kept = f"; what it answered so far is in {self.cache}" if self.cache is not None else ""
        raise UserError(
            f"{self.endpoint} gave no answer in {self.retries + 1} tries ({trouble}); run the job again later{kept}."
        )

    def _read_cache(self) -> dict[tuple[int, ...], Probability]:
        """Answers of this index in the cache. A last line that a stopped job left unfinished is cut off."""
        known: dict[tuple[int, ...], Probability] = {}
        if self.cache is None:
            return known
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        text = self.cache.read_text() if self.cache.exists() else ""
        if not text.endswith("\n") and text:
            text = text[: text.rfind("\n") + 1]
            self.cache.write_text(text)
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                row = json.loads(line)
                if row["index"] == self.index:
                    known[tuple(row["query_ids"])] = Probability(*(row[name] for name in Probability._fields))
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"line {number} of {self.cache} is no answer of an infini-gram engine; delete it."
                ) from None
        return known


def _answer(answer: dict[str, Any], where: str) -> Probability:
    """Read the documented fields; a negative probability, the engines' sign for 0/0, is 0 (as in the released code)."""
    if "error" in answer:
        raise UserError(
            f"{where} refuses a query ({answer['error']}); check the name of the index and that ids are its own."
        )
    try:
        counts = (int(answer[name]) for name in ("suffix_len", "prompt_cnt", "cont_cnt"))
        return Probability(max(0.0, float(answer["prob"])), *counts)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{where} gave an answer without prob, suffix_len and counts; check the endpoint.") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the engine says about a refused query."""
    try:
        return str(json.load(error)["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"
