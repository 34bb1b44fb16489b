"""Infini-gram: counts and back-off against counting by hand, the engines behind the same methods, and the metric."""

import importlib.util
import json
import math
import resource
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization.errors import UserError
from memorization.probes.distributional import distributional_memorization, joint_log_probability
from memorization.probes.infini_gram import Engine, InfiniGram, Probability, suffix_array
from memorization.probes.infini_gram_engines import InfiniGramAPI, LocalEngine

CORPUS = [[1, 2, 3, 1, 2, 4], [5, 1, 2, 3], [3, 3]]


def count(sequences, ids):
    if not ids:
        return sum(len(row) + 1 for row in sequences if row)
    return sum(row[at : at + len(ids)] == ids for row in sequences for at in range(len(row)))


def back_off(sequences, context, token):
    for length in range(len(context), -1, -1):
        suffix = context[len(context) - length :]
        if count(sequences, suffix):
            first, second = count(sequences, suffix), count(sequences, [*suffix, token])
            return Probability(second / first, length, first, second)
    raise AssertionError("the empty suffix always occurs")


def draw(seed, vocabulary, rows=60, longest=12):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, rng.integers(1, longest)).tolist() for _ in range(rows)]


# ------------------------------------------------------------------------------------------------------------
# Counts


def test_counts_by_hand():
    index = InfiniGram(CORPUS)
    assert (index.tokens, index.sequences, index.vocabulary) == (12, 3, 6)
    queries = [[], [1], [1, 2], [1, 2, 3], [4, 5], [3, 3], [3, 3, 3], [0], [2, 3, 1, 2, 4], [3, 5]]
    assert index.counts(queries).tolist() == [15, 3, 3, 2, 0, 1, 0, 0, 1, 0]
    assert [index.count(query) for query in queries] == index.counts(queries).tolist()


def test_back_off_by_hand():
    index = InfiniGram(CORPUS)
    assert index.probability([5, 5, 1, 2], 3) == (1.0, 3, 1, 1)  # "5 1 2" occurs, "5 5 1 2" does not
    assert index.probability([3, 1, 2], 3) == (0.0, 3, 1, 0)  # no shorter suffix is asked, although "1 2 3" occurs
    assert index.probability([5, 3, 1], 2) == (1.0, 2, 1, 1)
    assert index.probability([4, 1, 2], 4) == (1 / 3, 2, 3, 1)
    assert index.probability([], 3) == (4 / 15, 0, 15, 4)
    assert index.probability([2, 4], 1) == (0.0, 2, 1, 0)  # occurs, but only at the end of a sequence


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=1, max_size=6).filter(any),
    st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=7), st.integers(0, 3)), max_size=6),
)
def test_counts_and_back_off_are_those_of_counting(sequences, queries):
    index = InfiniGram(sequences, vocabulary=4)
    queries = [(context, token) for context, token in queries if len(context) < index.tokens]
    contexts, tokens = [context for context, _ in queries], [token for _, token in queries]
    expected = [back_off(sequences, context, token) for context, token in queries]
    found = index.probabilities(contexts, tokens)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
    assert [index.probability(context, token) for context, token in queries] == expected
    whole = [[*context, token] for context, token in queries]
    assert index.counts(whole).tolist() == [count(sequences, ids) for ids in whole]


@pytest.mark.parametrize("vocabulary", [3, 255, 256, 300, 65535, 65536, 70000, 2**24 + 5])
def test_every_width_of_ids(vocabulary):
    # few distinct ids, at both ends and around the borders of bytes, so that n-grams repeat
    ids = [i for i in (0, 1, 2, 254, 255, 256, 257, 65534, 65535, 65536, 69999, 2**24, 2**24 + 4) if i < vocabulary]
    places = draw(vocabulary, len(ids), rows=40)
    sequences = [[ids[i] for i in row] for row in places]
    index = InfiniGram(sequences, vocabulary=vocabulary)
    queries = [row[at : at + 2] for row in sequences for at in range(len(row))]
    queries += [[a, b] for a in ids for b in ids]
    assert index.counts(queries).tolist() == [count(sequences, query) for query in queries]


@pytest.mark.parametrize("force64", [False, True])
@pytest.mark.parametrize("highest", [4, 260, 70000])
def test_suffix_array_is_the_sorted_suffixes(highest, force64):
    rng = np.random.default_rng(highest)
    stream = rng.choice([0, 1, highest - 1, highest], 400).astype(np.min_scalar_type(highest))
    stream[5] = highest
    expected = sorted(range(len(stream)), key=lambda at: stream[at:].tolist())
    assert suffix_array(stream, force64=force64).tolist() == expected


def test_pieces_of_the_suffix_array_are_put_together(monkeypatch):
    stream = np.random.default_rng(1).integers(0, 500, 1000).astype(np.uint16)
    whole = suffix_array(stream)
    monkeypatch.setattr("memorization.probes.infini_gram.CHUNK", 37)
    assert suffix_array(stream).tolist() == whole.tolist()
    sequences = draw(2, 5)
    assert InfiniGram(sequences).count([1, 2]) == count(sequences, [1, 2])


def test_probabilities_and_the_end_sum_to_one():
    sequences = draw(3, 4)
    index = InfiniGram(sequences)
    for context in ([], [1], [2, 3], [0, 1, 2, 3, 0, 1]):
        found = index.probabilities([context] * 4, range(4))
        suffix = context[len(context) - int(found.suffix_length[0]) :]
        ends = sum(row[len(row) - len(suffix) :] == suffix for row in sequences)
        assert found.probability.sum() + ends / found.context_count[0] == pytest.approx(1)


def test_an_array_is_its_rows_and_empty_sequences_change_nothing():
    rows = np.random.default_rng(4).integers(0, 5, (30, 6)).astype(np.uint16)
    queries = draw(5, 5, rows=50, longest=4)
    expected = InfiniGram(rows.tolist()).counts([[], *queries])
    assert InfiniGram(rows).counts([[], *queries]).tolist() == expected.tolist()
    assert InfiniGram([*rows.tolist(), []]).counts([[], *queries]).tolist() == expected.tolist()


def test_saved_index_gives_the_same_answers(tmp_path):
    index = InfiniGram(CORPUS)
    index.save(tmp_path / "index")
    loaded = InfiniGram.load(tmp_path / "index")
    assert (loaded.vocabulary, loaded.sequences, loaded.tokens, loaded.nbytes) == (6, 3, 12, index.nbytes)
    for context, token in (([5, 5, 1, 2], 3), ([], 1), ([2, 4], 1)):
        assert loaded.probability(context, token) == index.probability(context, token)
    with pytest.raises(UserError, match=r"InfiniGram\.save"):
        InfiniGram.load(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfiniGram([]), "corpus is empty"),
        (lambda: InfiniGram([[], []]), "corpus is empty"),
        (lambda: InfiniGram(np.zeros((3, 0), dtype=int)), "corpus is empty"),
        (lambda: InfiniGram([[1, -2]]), "token id -2"),
        (lambda: InfiniGram([[1, 9]], vocabulary=9), "token id 9 is not among 0-8"),
        (lambda: InfiniGram([[0.5]]), "list of integers"),
        (lambda: InfiniGram([1, 2]), "list of integers"),
        (lambda: InfiniGram([[1]], vocabulary=2**33), "too large"),
        (lambda: InfiniGram(CORPUS).count([6]), "token id 6"),
        (lambda: InfiniGram(CORPUS).probability([1], -1), "token id -1"),
        (lambda: InfiniGram(CORPUS).count([1] * 13), "longer than the whole corpus"),
        (lambda: InfiniGram(CORPUS).answer_probabilities([1], []), "question 0 has an empty answer"),
        (lambda: InfiniGram(CORPUS).probabilities([[1]], [1, 2]), "1 contexts and 2 tokens"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(UserError, match=message):
        make()


# ------------------------------------------------------------------------------------------------------------
# Answers


class OneByOne(Engine):
    """The loop that any engine has."""

    def __init__(self, index):
        self.index = index

    def probability(self, context, token):
        return self.index.probability(context, token)


def test_answers_condition_on_the_prompt_and_the_answer_so_far():
    sequences = draw(6, 4)
    index = InfiniGram(sequences)
    questions = [(row[:3], row[3:]) for row in draw(7, 4, rows=30) if len(row) > 3] + [([], [1, 2])]
    for engine in (index, OneByOne(index)):
        answers = engine.answers(questions)
        at = 0
        for number, (prompt, answer) in enumerate(questions):
            for place, token in enumerate(answer):
                found = [column[at] for column in answers.found]
                assert found == list(back_off(sequences, [*prompt, *answer[:place]], token))
                assert (answers.question[at], answers.token[at]) == (number, place)
                at += 1
        assert at == len(answers.token)
    one = index.answer_probabilities(*questions[0])
    assert one.probability.tolist() == answers.found.probability[: len(questions[0][1])].tolist()


def test_joint_by_both_conventions():
    index = InfiniGram(CORPUS)
    # 1 | (5): 1/1; 2 | (5 1): 1/1; 4 | (5 1 2): 0; 0 | (4): 0 of "4"
    assert index.answer_probabilities([5], [1, 2, 4]).probability.tolist() == [1, 1, 0]
    assert index.joint([5], [1, 2, 4]) == 0.0
    assert index.joint([5], [1, 2, 4], zeros="zero") == -math.inf
    assert math.isnan(index.joint([5, 1, 2], [4]))
    assert index.joint([4, 1], [2, 3], zeros="zero") == pytest.approx(math.log(2 / 3))
    assert index.joint([], [3], zeros="zero") == pytest.approx(math.log(4 / 15))


@pytest.mark.parametrize(
    ("values", "zeros", "message"),
    [
        ([], "skip", "without tokens"),
        ([0.5, float("nan")], "skip", "NaN"),
        ([1.5], "skip", "above 1"),
        ([0.5], "drop", "skip or zero"),
    ],
)
def test_bad_probabilities(values, zeros, message):
    with pytest.raises(UserError, match=message):
        joint_log_probability(values, zeros)


# ------------------------------------------------------------------------------------------------------------
# Distributional memorization


def pearson_of_ranks(a, b):
    def ranks(values):  # mean rank of ties
        return [sum(x < v for x in values) + (sum(x == v for x in values) + 1) / 2 for v in values]

    return np.corrcoef(ranks(a), ranks(b))[0, 1]


def test_rho_is_the_correlation_of_ranks_without_questions_that_have_no_value():
    rng = np.random.default_rng(8)
    reference = np.round(-rng.exponential(size=60), 1)
    model = reference + rng.normal(size=60)
    expected = pearson_of_ranks(reference[3:].tolist(), model[3:].tolist())
    reference[:2], model[2] = np.nan, np.nan
    found = distributional_memorization(reference, model)
    assert found.rho == pytest.approx(expected)
    assert (found.n, found.left_out) == (57, 3)


def test_minus_infinity_is_the_tied_lowest_rank():
    reference, model = [-math.inf, -math.inf, -3.0, -1.0], [-4.0, -9.0, -5.0, -math.inf]
    found = distributional_memorization(reference, model, zeros="zero")
    assert found.rho == pytest.approx(pearson_of_ranks([-9, -9, -3, -1], [-4, -9, -5, -99]))
    assert (found.n, found.left_out) == (4, 0)


@pytest.mark.parametrize("reference", [[-1.0, -1.0, -1.0], [-1.0, math.nan, math.nan], []])
def test_no_rho_without_variation(reference):
    found = distributional_memorization(reference, [-1.0, -2.0, -3.0][: len(reference)])
    assert math.isnan(found.rho)
    assert found.n + found.left_out == len(reference)


@pytest.mark.parametrize(
    ("reference", "model", "zeros", "message"),
    [
        ([-1.0], [-1.0, -2.0], "skip", "1 questions have a reference and 2"),
        ([-1.0, math.inf], [-1.0, -2.0], "zero", r"\+inf"),
        ([-1.0, -math.inf], [-1.0, -2.0], "skip", "write zeros: zero"),
        ([-1.0], [-1.0], "ignore", "skip or zero"),
    ],
)
def test_bad_pairs(reference, model, zeros, message):
    with pytest.raises(UserError, match=message):
        distributional_memorization(reference, model, zeros)


# ------------------------------------------------------------------------------------------------------------
# Engines


class Server:
    """A real HTTP server that answers as the public engine is documented to, by an index in memory."""

    def __init__(self, index):
        self.requests, self.troubles = [], []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(query)
                trouble = server.troubles.pop(0) if server.troubles else None
                if trouble == "slow":
                    time.sleep(0.5)
                if trouble in ("drop", "slow"):
                    self.close_connection = True
                    return
                if query["index"] != "tiny":
                    self.reply(400, {"error": f"[Flask] Invalid index: {query['index']}"})
                elif trouble == "garbage":
                    self.reply(200, b"<html>")
                elif trouble is not None:
                    self.reply(*trouble)
                else:
                    found = index.probability(query["query_ids"][:-1], query["query_ids"][-1])
                    names = ("prob", "suffix_len", "prompt_cnt", "cont_cnt")
                    self.reply(200, dict(zip(names, found, strict=True)) | {"latency": 0.1, "longest_suffix": ""})

            def reply(self, code, answer):
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server(InfiniGram(CORPUS))
    yield made
    made.close()


QUESTIONS = [([5], [1, 2, 4]), ([4, 1], [2, 3]), ([], [3])]


@pytest.mark.parametrize("workers", [1, 4])
def test_public_engine_gives_what_its_index_gives(server, tmp_path, workers):
    index = InfiniGram(CORPUS)
    engine = InfiniGramAPI("tiny", server.endpoint, cache=tmp_path / "cache" / "answers.jsonl", workers=workers)
    mine, theirs = index.answers(QUESTIONS), engine.answers(QUESTIONS)
    for a, b in zip((*mine[:2], *mine.found), (*theirs[:2], *theirs.found), strict=True):
        assert a.tolist() == b.tolist()
    assert engine.joint([4, 1], [2, 3]) == pytest.approx(index.joint([4, 1], [2, 3]))
    assert len(server.requests) == 6  # the last two came from the cache
    assert {"index": "tiny", "query_type": "infgram_prob", "query_ids": [4, 1, 2]} in server.requests


def test_a_stopped_job_goes_on_from_its_cache(server, tmp_path):
    cache = tmp_path / "answers.jsonl"
    first = InfiniGramAPI("tiny", server.endpoint, cache=cache)
    kept = [first.probability([5, 1], 2), first.probability([], 3)]
    whole = cache.read_text()
    cache.write_text(whole + '{"index": "tiny", "query_ids": [1')  # stopped while it wrote
    again = InfiniGramAPI("tiny", server.endpoint, cache=cache)
    assert [again.probability([5, 1], 2), again.probability([], 3)] == kept
    assert len(server.requests) == 2
    again.probability([1], 2)
    assert cache.read_text().startswith(whole)
    assert len(cache.read_text().splitlines()) == 3
    assert len(InfiniGramAPI("other", server.endpoint, cache=cache)._known) == 0  # answers of another index
    cache.write_text('{"loss": 1}\n')
    with pytest.raises(UserError, match="line 1"):
        InfiniGramAPI("tiny", server.endpoint, cache=cache)


def test_trouble_that_passes_is_tried_again(server):
    server.troubles = [(503, {"error": "busy"}), "drop", "garbage", (429, {}), "slow", None]
    engine = InfiniGramAPI("tiny", server.endpoint, retries=5, wait=0.001, timeout=0.2)
    assert engine.probability([5, 1], 2) == (1.0, 2, 1, 1)
    assert len(server.requests) == 6


def test_trouble_that_stays_is_one_sentence(server, tmp_path):
    server.troubles = [(503, {"error": "busy"})] * 9
    engine = InfiniGramAPI("tiny", server.endpoint, retries=2, wait=0.001, cache=tmp_path / "kept.jsonl")
    with pytest.raises(UserError, match=r"no answer in 3 tries .*503.*kept\.jsonl"):
        engine.probability([5, 1], 2)
    assert len(server.requests) == 3


def test_an_unknown_index_is_said_at_once(server):
    with pytest.raises(UserError, match=r"'tinny'.*Invalid index: tinny"):
        InfiniGramAPI("tinny", server.endpoint, wait=60).answers(QUESTIONS)
    server.requests.clear()
    server.troubles = [(200, {"error": "Please limit your input"}), (200, {"count": 3}), (404, b"nothing")]
    engine = InfiniGramAPI("tiny", server.endpoint, wait=60)
    for message in ("Please limit", "without prob", "HTTP 404"):
        with pytest.raises(UserError, match=message):
            engine.probability([1], 2)
    assert len(server.requests) == 3


def test_long_contexts_lose_their_beginning_and_a_negative_probability_is_zero(server):
    server.troubles = [None, (200, {"prob": -1.0, "suffix_len": 0, "prompt_cnt": 0, "cont_cnt": 0})]
    engine = InfiniGramAPI("tiny", server.endpoint, longest=3)
    assert engine.probability([9, 9, 5, 1], 2) == (1.0, 2, 1, 1)
    assert server.requests[0]["query_ids"] == [5, 1, 2]
    assert engine.probability([1], 2).probability == 0.0


def test_local_engine_counts_as_we_do(tmp_path):
    pytest.importorskip("infini_gram")
    sequences = draw(9, 300, rows=200) + draw(10, 4, rows=200)
    stream = np.concatenate([[65535, *row] for row in sequences]).astype("<u2")
    lengths = [2 * (len(row) + 1) for row in sequences]
    (tmp_path / "tokenized.0").write_bytes(stream.tobytes())
    (tmp_path / "offset.0").write_bytes((np.cumsum(lengths) - lengths).astype("<u8").tobytes())
    files = str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    arguments = ["--data_dir", tmp_path, "--save_dir", tmp_path, "--cpus", "1", "--mem", "1", "--ulimit", files]
    subprocess.run(
        [sys.executable, "-m", "infini_gram.indexing", *map(str, arguments)], check=True, capture_output=True
    )
    index, engine = InfiniGram(sequences, vocabulary=65535), LocalEngine(tmp_path, end_token=65000)
    questions = [(row[:-1], row[-1:]) for row in draw(11, 4, rows=100) if row]
    questions += [(row[:2], row[2:]) for row in draw(12, 300, rows=100) if len(row) > 2]
    mine, theirs = index.answers(questions), engine.answers(questions)
    for a, b in zip(mine.found, theirs.found, strict=True):
        assert a.tolist() == pytest.approx(b.tolist())


def test_local_engine_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no infini-gram index"):
        LocalEngine(tmp_path, end_token=2)
    for name in ("tokenized.0", "table.0", "offset.0"):
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "infini_gram.engine", None)
    with pytest.raises(UserError, match="pip install infini-gram"):
        LocalEngine(tmp_path, end_token=2)


def test_the_metric_needs_no_suffix_array_and_no_torch():
    heavy = {"torch", "pydivsufsort", "scipy"}
    code = f"import sys, memorization.probes.distributional; assert not {heavy} & set(sys.modules)"
    assert importlib.util.find_spec("pydivsufsort")
    subprocess.run([sys.executable, "-c", code], check=True)
