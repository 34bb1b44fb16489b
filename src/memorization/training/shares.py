"""Whole numbers in given proportions."""


def proportional(total: int, weights: list[float]) -> list[int]:
    """Split `total` into whole parts proportional to `weights`, largest remainders first."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
