"""Goldfish loss: a share 1/k of the tokens is never a target, so no passage can be learned without gaps.

Hans et al. 2024 ("Be like a goldfish, don't memorize!"); a baseline of `tokenswap` (section 4, table 4). Which tokens
are dropped must be the same each time a passage is seen, or what one copy leaves out another teaches: the hash
strategies decide by the last `window` tokens, wherever they stand.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from memorization.errors import UserError

if TYPE_CHECKING:
    import torch

NEEDS = frozenset({"weights", "training data"})

STRATEGIES = ("hash-table", "hash-avalanche", "static", "random")
TABLE_SIZE = 1_000_003  # a prime, as released
TABLE_SEED = 2971215073  # as released
WINDOW = 4


def goldfish_mask(
    input_ids: "torch.Tensor",
    k: int = 4,
    strategy: str = "hash-table",
    *,
    window: int = WINDOW,
    seed: int = TABLE_SEED,
    generator: "torch.Generator | None" = None,
) -> "torch.Tensor":
    """Return (batch, time) bool: whether the token at a position counts in the loss, as a target.

    input_ids: (batch, time) token ids; about one token in k is dropped. Strategies, of which the first is the one
    the paper trains with:

    * hash-table: a table of 1,000,003 uniform numbers (drawn on the CPU from `seed`, so that it is the same on every
      device) is read at the product of the window's ids modulo the table's size; below 1/k the token is dropped. The
      product ignores order and is 0 for every window that holds the id 0: all such windows share one decision.
    * hash-avalanche: a 64-bit mix (the finalizer of SplitMix64) of the ids one after another, begun at `seed`, read as
      a number in [0, 1); below 1/k the token is dropped. Order matters and 0 is an id like any other. The released code
      mixes the product of the ids with another function; any mix that scatters well serves.
    * static: the k-th, 2k-th, ... token of each row.
    * random: each token with probability 1/k, by `generator` (None: torch's own), afresh at each call. Copies of a
      passage lose different tokens.

    Hash strategies: the window of a token is the `window` tokens that end at the token itself; the first window - 1
    tokens of a row have none and always count. Products are reduced at each factor, so large vocabularies do not
    overflow. (The released code takes windows of the shifted targets, which cannot reach the first token of a row,
    and lets large products wrap.)
    """
    import torch

    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise UserError(f"k = {k!r}: the Goldfish loss drops one token in k and needs a whole number k >= 2")
    if strategy not in STRATEGIES:
        raise UserError(f"no Goldfish strategy {strategy!r}: write one of {', '.join(STRATEGIES)}")
    if window < 1:
        raise UserError(f"window = {window!r}: the hash of a Goldfish strategy needs at least 1 token")
    kept = torch.ones(input_ids.shape, dtype=torch.bool, device=input_ids.device)
    if strategy == "static":
        kept[:, k - 1 :: k] = False
    elif strategy == "random":
        place = input_ids.device if generator is None else generator.device
        draws = torch.randint(k, input_ids.shape, generator=generator, device=place)
        kept = (draws != 0).to(input_ids.device)
    elif input_ids.shape[1] >= window:
        windows = input_ids.long().unfold(1, window, 1)
        uniform = _table_values(windows, seed) if strategy == "hash-table" else _avalanche(windows, seed)
        kept[:, window - 1 :] = uniform >= 1 / k
    return kept


@lru_cache(maxsize=4)
def _table(seed: int) -> "torch.Tensor":
    import torch

    return torch.rand(TABLE_SIZE, generator=torch.Generator().manual_seed(seed))


def _table_values(windows: "torch.Tensor", seed: int) -> "torch.Tensor":
    import torch

    key = torch.ones_like(windows[..., 0])
    for token in windows.unbind(-1):
        key = key * (token % TABLE_SIZE) % TABLE_SIZE  # both factors below 2^20
    return _table(seed).to(windows.device)[key]


def _avalanche(windows: "torch.Tensor", seed: int) -> "torch.Tensor":
    """A number in [0, 1), float64, for each window; int64 arithmetic wraps modulo 2^64, which is what is wanted."""
    import torch

    state = torch.full_like(windows[..., 0], seed)
    for token in windows.unbind(-1):
        state = _mix((state ^ token) + _signed(0x9E3779B97F4A7C15))
    return _shifted(state, 11).double() / 2**53


def _mix(x: "torch.Tensor") -> "torch.Tensor":
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: "torch.Tensor", bits: int) -> "torch.Tensor":
    """Right shift that fills with zeros; torch's own repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the same bits."""
    return x - (1 << 64) if x >= 1 << 63 else x
