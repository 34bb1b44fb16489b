"""WikiText-103 and GPT-2's tokenizer and embeddings from downloaded assets (`patterns`, sec. 3.1, 3.3)."""

import re
import shutil
from pathlib import Path

import numpy as np

from memorization.errors import UserError

HEADING = re.compile(r"^ (= )+(?P<title>.*?)( =)+ $")
FILES = {"train": "train-*.parquet", "validation": "validation-*.parquet", "held_out": "test-*.parquet"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def read_paragraphs(folder: str | Path) -> list[dict[str, str]]:
    """Return the paragraphs of WikiText-103 in order, with columns text, module (the article) and split.

    folder: holds the parquet files of `wikitext-103-raw-v1`, at any depth. Headings and empty lines are left out.
    """
    import pyarrow.parquet as pq

    rows = []
    for split, pattern in FILES.items():
        paths = sorted(Path(folder).rglob(pattern))
        if not paths:
            raise UserError(f"{folder} holds no {pattern}: download it with `snakemake assets --config scale=paper`")
        article = ""
        for path in paths:
            for line in pq.read_table(path, columns=["text"])["text"].to_pylist():
                heading = HEADING.match(line.rstrip("\n"))
                if heading:
                    article = heading["title"]
                elif line.strip():
                    rows.append({"text": line.strip(), "package": "wikitext", "module": article, "split": split})
    return rows


def copy_tokenizer(asset: str | Path, folder: str | Path) -> None:
    """Copy a downloaded model's tokenizer."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        source = Path(asset) / name
        if not source.is_file():
            raise UserError(f"{asset} has no {name}: download it with `snakemake assets --config scale=paper`")
        shutil.copyfile(source, Path(folder) / name)


def read_embedding(asset: str | Path) -> np.ndarray:
    """Return a GPT-2 model's token embeddings (vocabulary, width), float32, from its safetensors."""
    from safetensors import safe_open

    with safe_open(Path(asset) / "model.safetensors", framework="numpy") as weights:
        for name in ("wte.weight", "transformer.wte.weight"):
            if name in weights.keys():  # noqa: SIM118  not a mapping
                return np.asarray(weights.get_tensor(name), dtype=np.float32)
    raise UserError(f"{asset}/model.safetensors has no wte.weight: it is not a GPT-2 model")
