"""Make the sets of one tokenizer: text, questions, and prompts with replies (`geometry`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.data import facts, store
from memorization.provenance.logs import logging_to
from memorization.provenance.record import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write dataset/<seed>/ and card.json of every folder, in the order of `facts.folders_of`."""
    spec = {**smk.params.set, "assets": smk.params.assets}
    inputs = {name: getattr(smk.input, name, "") for name in ("corpus", "tokenizer")}
    folders = facts.folders_of(spec)
    targets = dict(zip(folders, map(Path, smk.output.dataset), strict=True))
    cards: dict[str, dict[str, Any]] = {folder: {} for folder in folders}
    for seed in range(spec["seeds"]):
        for folder, (splits, about) in facts.make_sets(spec, seed, inputs).items():
            cards[folder][str(seed)] = store.save(targets[folder] / str(seed), splits, about)
        print(f"seed {seed}: { {folder: made[str(seed)]['items'] for folder, made in cards.items()} }")
    for (folder, seeds), path in zip(cards.items(), smk.output.card, strict=True):
        write_json({"name": folder, "seeds": seeds}, path)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
