"""Pages, their generated blocks, and small things of Markdown."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from memorization.errors import UserError
from memorization.provenance.record import replacing

WIDTH = 1200  # pixels of a picture, at most


def write(path: Path, text: str) -> None:
    """Write a page whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def rewrite(path: Path, name: str, content: str) -> None:
    """Replace the block `name` of a page; UserError if the page has no such block."""
    block(path, name)
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    write(path, f"{before}{begin}\n{content.strip()}\n{end}{after}")


def block(path: Path, name: str) -> str:
    """Content of the block `name` of a page; UserError if the page is not there or has no such block."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if not path.is_file():
        raise UserError(f"there is no page {path}: write it, with `{begin}` and `{end}` in it")
    found = re.search(rf"{begin}\n(.*?){end}", path.read_text("utf-8"), re.DOTALL)
    if not found:
        raise UserError(f"{path} has no block {name}: put `{begin}` and `{end}` on lines of their own where it belongs")
    return found[1].rstrip("\n")


def shrink(source: Path, target: Path, width: int = WIDTH) -> None:
    """Copy a PNG, scaled down to at most `width` pixels; smaller ones keep their size."""
    from PIL import Image

    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def cell(text: object) -> str:
    """Text that does not break a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def minutes(seconds: float) -> str:
    """Seconds for a reader; "–" when unknown."""
    if pd.isna(seconds):
        return "–"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
