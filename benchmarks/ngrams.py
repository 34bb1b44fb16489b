"""Infini-gram language model in memory against the package `infini_gram` (index on disk), in one run.

    python benchmarks/ngrams.py [--tokens 5000000] [--queries 10000] [--build-only]

Both count the same synthetic corpus: frequencies as Zipf's law has them, and every fourth sequence the copy of a part
of an earlier one, so that long matches occur. The package builds with one process and answers one query a call; here a
batch of queries is answered at once, and one query a call is timed too. All counts must agree. Without the package
only our side is timed (pip install infini-gram==2.6.0). Memory is the peak of a process of its own above what numpy
and the corpus take.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from memorization.probes.infini_gram import InfiniGram, Probabilities, Probability
from memorization.probes.infini_gram_engines import LocalEngine

VOCABULARY, LENGTH, CONTEXT = 2048, 256, 28
SINGLE = 1000  # queries that are also asked one by one


def make_corpus(tokens: int) -> np.ndarray:
    """(sequences, LENGTH) token ids."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, VOCABULARY + 1)
    rows = np.empty((max(8, tokens // LENGTH), LENGTH), dtype=np.uint16)
    edges = np.cumsum(shares / shares.sum())
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096]
        block[:] = np.minimum(np.searchsorted(edges, rng.random(block.shape)), VOCABULARY - 1)
    copies = np.arange(3, len(rows), 4)
    rows[copies, 100:] = rows[rng.integers(0, copies - copies % 4 + 3), :-100]
    return rows


def make_queries(corpus: np.ndarray, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Contexts (queries, CONTEXT) and tokens (queries,): pieces of the corpus, and every other with one id changed."""
    rng = np.random.default_rng(1)
    rows, places = rng.integers(0, len(corpus), queries), rng.integers(0, LENGTH - CONTEXT, queries)
    pieces = corpus[rows[:, None], places[:, None] + np.arange(CONTEXT + 1)].astype(np.int64)
    changed = np.arange(0, queries, 2)
    pieces[changed, rng.integers(0, CONTEXT + 1, len(changed))] = rng.integers(0, VOCABULARY, len(changed))
    return pieces[:, :-1], pieces[:, -1]


def peak() -> int:
    """Largest memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build_apart(tokens: int, answer: Any) -> None:
    """Build in this process and send (seconds, peak bytes above the corpus, bytes of the index)."""
    corpus = make_corpus(tokens)
    InfiniGram(corpus[:8])  # loads the library
    before, began = peak(), time.perf_counter()
    index = InfiniGram(corpus, vocabulary=VOCABULARY)
    answer.send((time.perf_counter() - began, peak() - before, index.nbytes))


def report_build(tokens: int) -> float:
    """Time and memory of our build in a fresh process; returns tokens a second."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=build_apart, args=(tokens, theirs))
    process.start()
    seconds, memory, kept = mine.recv()
    process.join()
    print(
        f"build, ours                 {seconds:8.2f} s   {tokens / seconds / 1e6:6.2f} M tokens/s   "
        f"peak {memory / tokens:.1f} bytes a token ({memory / 2**30:.2f} GiB), kept {kept / tokens:.1f}"
    )
    return tokens / seconds


def build_peer(corpus: np.ndarray, folder: Path) -> float:
    """Build the package's index of version 4 from ids; returns seconds."""
    stream = np.full((len(corpus), LENGTH + 1), 65535, dtype="<u2")
    stream[:, 1:] = corpus
    (folder / "tokenized.0").write_bytes(stream.tobytes())
    (folder / "offset.0").write_bytes((np.arange(len(corpus)) * 2 * (LENGTH + 1)).astype("<u8").tobytes())
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    arguments = f"--data_dir {folder} --save_dir {folder} --cpus 1 --mem 4 --ulimit {files}".split()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "infini_gram.indexing", *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def timed(name: str, queries: int, ours: float | None, run: Any) -> tuple[float, Any]:
    """Run once, print queries a second and the ratio to ours; returns (queries a second, the answer)."""
    began = time.perf_counter()
    answer = run()
    rate = queries / (time.perf_counter() - began)
    ratio = "" if ours is None else f"   ours in a batch is {ours / rate:.1f}x as fast"
    print(f"{name:<27} {rate:8.0f} queries/s{ratio}")
    return rate, answer


def agree(batch: Probabilities, singles: list[Probability]) -> str:
    """Whether suffix lengths and both counts are the same."""
    same = [list(row) for row in zip(*(column[: len(singles)].tolist() for column in batch[1:]), strict=True)]
    different = sum(a != list(b[1:]) for a, b in zip(same, singles, strict=True))
    return "identical counts" if not different else f"{different} of {len(singles)} answers DIFFER"


def main() -> None:
    """Print rates, ratios, memory and whether the counts agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=5_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--build-only", action="store_true")
    options = parser.parse_args()
    print(f"{options.tokens:,} tokens in sequences of {LENGTH}, vocabulary {VOCABULARY}")
    rate = report_build(options.tokens)
    if options.build_only:
        return
    corpus = make_corpus(options.tokens)
    index = InfiniGram(corpus, vocabulary=VOCABULARY)
    contexts, tokens = make_queries(corpus, options.queries)
    count = options.queries
    ours, batch = timed("queries, ours in a batch", count, None, lambda: index.probabilities(contexts, tokens))
    pairs = list(zip(contexts.tolist(), tokens.tolist(), strict=True))
    some = pairs[:SINGLE]
    _, singles = timed("queries, ours one by one", len(some), ours, lambda: [index.probability(*pair) for pair in some])
    print(f"  {agree(batch, singles)}; mean suffix {batch.suffix_length.mean():.1f} of {CONTEXT} tokens")
    with tempfile.TemporaryDirectory() as name:
        try:
            import infini_gram  # noqa: F401
        except ImportError:
            print("The package infini_gram is not installed, so nothing is compared: pip install infini-gram==2.6.0")
            return
        seconds = build_peer(corpus, Path(name))
        theirs = options.tokens / seconds
        print(
            f"build, infini_gram          {seconds:8.2f} s   {theirs / 1e6:6.2f} M tokens/s   "
            f"ours is {rate / theirs:.1f}x as fast"
        )
        engine = LocalEngine(name, end_token=65000)
        raw = engine._engine.infgram_prob
        timed(
            "queries, infini_gram",
            count,
            ours,
            lambda: [raw(prompt_ids=context, cont_id=token) for context, token in pairs],
        )
        print(f"  {agree(batch, [engine.probability(*pair) for pair in pairs])}")


if __name__ == "__main__":
    main()
