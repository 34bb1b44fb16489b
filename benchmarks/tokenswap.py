"""What TokenSwap costs beside plain decoding, and beside encoding the whole context again at every step.

    python benchmarks/tokenswap.py [--repeats 7]

(a) One vocabulary, greedy, 64 tokens after a prompt of 32: `generate` with our processor against two limits: plain
`generate` of the main model plus the auxiliary's own cached steps, and two bare cached loops, which leave out
what `generate` itself costs beside the model. (b) Two byte-level vocabularies, to 256 tokens, one row: ours against
decoding and encoding the whole context and a full auxiliary pass at every step. Both must write the same. The gain
grows with the auxiliary: what a call of a tiny one costs hardly depends on how many tokens it sees. Each number is the
median over rounds in which all variants run in turn.
"""

import argparse
import os
import pydoc_data.topics as english
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LogitsProcessor, PreTrainedTokenizerFast

from memorization.methods.swap_set import SwapSet
from memorization.methods.tokenswap import TokenSwapProcessor, swap_log_probs

VOCABULARY, PROMPT, STEPS, LONG = 2048, 32, 64, 256


def neox(layers: int, width: int, vocabulary: int, seed: int) -> GPTNeoXForCausalLM:
    """A random model."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPTNeoXForCausalLM(config).eval()


def medians(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def cached_steps(model: GPTNeoXForCausalLM, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Greedy decoding in a bare loop with a KV cache."""
    output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    for _ in range(steps):
        column = output.logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, column], 1)
        if ids.shape[1] < PROMPT + steps:
            output = model(input_ids=column, past_key_values=output.past_key_values, use_cache=True)
    return ids


def written(model: GPTNeoXForCausalLM, ids: torch.Tensor, steps: int, *processors: LogitsProcessor) -> torch.Tensor:
    """Greedy `generate`."""
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=steps,
        do_sample=False,
        pad_token_id=0,
        logits_processor=list(processors),
    )


class EncodeAgain(LogitsProcessor):
    """The whole context decoded, encoded for the auxiliary and passed through it, at every step."""

    def __init__(self, aux, tokenizer, aux_tokenizer, ids_main, ids_aux):
        self.aux, self.tokenizer, self.aux_tokenizer = aux, tokenizer, aux_tokenizer
        self.ids = ids_main, ids_aux

    @torch.no_grad()
    def __call__(self, input_ids, scores):
        text = self.tokenizer.decode(input_ids[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        seen = self.aux_tokenizer(text, return_tensors="pt").input_ids
        return swap_log_probs(scores, self.aux(input_ids=seen).logits[:, -1], *self.ids)


def byte_level(text: str, vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer as GPT-2's, trained on `text`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def one_vocabulary(rows: int, repeats: int) -> None:
    """(a)."""
    main, aux = neox(4, 128, VOCABULARY, 0), neox(2, 64, VOCABULARY, 1)
    ids = torch.randint(0, VOCABULARY, (rows, PROMPT), generator=torch.Generator().manual_seed(0))
    words = torch.arange(100, 210)
    swap = TokenSwapProcessor(aux, None, (words, words))
    times = medians(
        {
            "generate, TokenSwap": lambda: written(main, ids, STEPS, swap),
            "generate, main alone": lambda: written(main, ids, STEPS),
            "bare loop, main": lambda: cached_steps(main, ids, STEPS),
            "bare loop, auxiliary": lambda: cached_steps(aux, ids, STEPS),
        },
        repeats,
    )
    print(f"\n(a) batch {rows}, prompt {PROMPT}, {STEPS} tokens")
    for name, seconds in times.items():
        print(f"{name:<24}{1000 * seconds:9.1f} ms")
    ours, plain, bare_main, bare_aux = times.values()
    print(f"TokenSwap / (generate of main + auxiliary's steps)   {ours / (plain + bare_aux):6.3f}x")
    print(f"TokenSwap / (bare main + bare auxiliary)             {ours / (bare_main + bare_aux):6.3f}x")
    print(f"generate / bare loop, main alone                     {plain / bare_main:6.3f}x")


def two_vocabularies(layers: int, width: int, repeats: int, *, generates: bool) -> None:
    """(b), with an auxiliary of this size; generates=False: the processors alone."""
    text = " ".join(" ".join(english.topics[name].split()) for name in ("for", "with", "exceptions", "naming", "class"))
    tokenizer, aux_tokenizer = byte_level(text, 1500), byte_level(text[: len(text) // 2], 900)
    vocabularies = len(tokenizer), len(aux_tokenizer)
    main, aux = neox(4, 128, vocabularies[0], 0), neox(layers, width, vocabularies[1], 1)
    covered = SwapSet.named("english-110").coverage(tokenizer, aux_tokenizer)
    again = EncodeAgain(aux, tokenizer, aux_tokenizer, torch.tensor(covered.main_ids), torch.tensor(covered.aux_ids))
    swap = TokenSwapProcessor(aux, tokenizer, aux_tokenizer=aux_tokenizer)
    real = torch.tensor([tokenizer.encode(text)[:LONG]])
    real_aux = torch.tensor([aux_tokenizer.encode(tokenizer.decode(real[0]))])
    scores, ids, steps = torch.zeros(1, vocabularies[0]), real[:, :PROMPT], LONG - PROMPT

    def follow(processor: LogitsProcessor) -> None:
        """Run a processor alone over a given text."""
        for t in range(PROMPT, LONG):
            processor(real[:, :t], scores)

    @torch.no_grad()
    def cached() -> None:
        """The auxiliary's cached steps alone, one token each."""
        output = aux(input_ids=real_aux[:, :PROMPT], use_cache=True, logits_to_keep=1)
        for t in range(PROMPT, LONG - 1):
            output = aux(input_ids=real_aux[:, t : t + 1], past_key_values=output.past_key_values, use_cache=True)

    variants = {
        "processor, ours": lambda: follow(swap),
        "processor, encode again": lambda: follow(again),
        "auxiliary's steps alone": cached,
    }
    if generates:
        agree = torch.equal(written(main, ids, steps, swap), written(main, ids, steps, again))
        variants["generate, ours"] = lambda: written(main, ids, steps, swap)
        variants["generate, encode again"] = lambda: written(main, ids, steps, again)
    times = medians(variants, repeats)
    print(f"\n(b) vocabularies {vocabularies}, {PROMPT} to {LONG} tokens, auxiliary of {layers} layers, width {width}")
    for name, seconds in times.items():
        print(f"{name:<24}{1000 * seconds:9.1f} ms")
    ours, theirs, limit, *whole = times.values()
    print(f"encode again / ours, processor alone, real text      {theirs / ours:6.2f}x")
    print(f"ours / auxiliary's steps alone                       {ours / limit:6.2f}x")
    if whole:
        same = "the same text" if agree else "texts DIFFER"
        print(f"encode again / ours, whole generate                  {whole[1] / whole[0]:6.2f}x   {same}")


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for rows in (1, 16):
        one_vocabulary(rows, options.repeats)
    two_vocabularies(2, 64, options.repeats, generates=True)
    two_vocabularies(6, 256, max(1, options.repeats // 2), generates=False)


if __name__ == "__main__":
    main()
