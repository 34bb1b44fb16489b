"""Sections of the configuration that all papers share, and what sections are made of."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from memorization.specs import Positive

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Compute(Section):
    """Where and how training runs."""

    device: Literal["auto", "cpu", "cuda"] = Field(description="auto takes a GPU when there is one")
    precision: Literal["float32", "bfloat16"] = Field(description="bfloat16 is mixed precision: weights stay float32")
    gpus: Annotated[int, Field(ge=0)] = Field(description="GPUs one training job asks the scheduler for")
    threads: Positive = Field(
        description="CPU threads of one training job; results are bit-equal at equal threads only"
    )
    runs_per_job: Positive = Field(description="runs one training process takes in turn: start-up is paid once")
    pieces_per_job: Positive = Field(description="data sets, tables or figures that one small job makes")
    save_every_seconds: Positive = Field(description="time a kill may cost")


class Text(Section):
    """Real English and its tokenizer."""

    source: Literal["docstrings", "wikitext"] = Field(description="prose of installed packages, or WikiText-103")
    packages: Annotated[list[str], Field(min_length=1)] = Field(
        description="installed packages whose docstrings are read"
    )
    vocabulary: Annotated[int, Field(ge=600, le=65536)] = Field(description="size of the byte-level BPE vocabulary")

    @model_validator(mode="after")
    def vocabulary_of_gpt2(self) -> "Text":
        """WikiText comes with GPT-2's tokenizer."""
        if self.source == "wikitext" and self.vocabulary != 50257:
            raise ValueError("source: wikitext uses GPT-2's tokenizer: write `vocabulary: 50257`")
        return self


class Claims(Section):
    """How claims are tested."""

    tested: bool = Field(description="false: every claim is 'not tested' whatever was measured")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(description="level of the intervals")
    bootstrap: Annotated[int, Field(ge=10)] = Field(description="resamples of items")


class Figures(Section):
    """How figures look."""

    dpi: Annotated[int, Field(ge=50, le=600)] = Field(description="of the PNGs")
    watermark: bool = Field(description="print the scale across every figure")


class ModelSize(Section):
    """One model size."""

    layers: Positive
    width: Positive
    heads: Positive = 1


def known(name: str, names: Any, where: str, what: str) -> None:
    """Raise ValueError with the nearest right name when `name` is not in `names`."""
    if name not in names:
        raise ValueError(f"{where}: no {what} named {name!r}{nearest(name, names)}")


def nearest(name: str, names: Any) -> str:
    """'; did you mean X?' or the list of names."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(map(str, names))}"
