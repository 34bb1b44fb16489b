"""What a claims file may say. Reading one needs neither pandas nor scipy: the Snakefile does it at every start."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from memorization.errors import UserError


class Claim(BaseModel):
    """One row of config/claims/<paper>.yaml; its comments explain the keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str
    statement: str
    source: str
    statistic: str = Field(pattern=r"^[\w.]+:\w+$")
    args: dict[str, Any] = {}
    experiments: list[str] = Field(min_length=1)
    tables: list[str] = Field(min_length=1)
    test: Literal["greater", "less", "equivalent", "ordering"]
    threshold: float
    margin: float | None = None
    transform: Literal["linear", "log"] = "linear"
    published: float | None = None
    published_note: str = ""
    why: str = Field(min_length=1)
    power: str = Field(min_length=1)
    run_with: str = ""  # how to make its runs where they are not made by default

    @model_validator(mode="after")
    def consistent(self) -> "Claim":
        """Only equivalence has a margin, only orderings a threshold that is a concordance."""
        if (self.margin is not None) != (self.test == "equivalent"):
            raise ValueError("`margin` belongs to `test: equivalent`, which needs one; write `margin:` there only")
        if self.margin is not None and self.margin <= (1 if self.transform == "log" else 0):
            raise ValueError("`margin` must be above 0, or a factor above 1 with `transform: log`")
        if self.transform == "log" and self.threshold <= 0:
            raise ValueError("`threshold` must be above 0 with `transform: log`; no effect is a ratio of 1")
        if self.test == "ordering" and not 0.5 < self.threshold <= 1:
            raise ValueError("`threshold` of an ordering is the least concordance of a seed: above .5, at most 1")
        return self

    def label(self) -> str:
        """The statistic as called, e.g. `forgettings_per_item(data=text)`."""
        called = ", ".join(f"{key}={value}" for key, value in self.args.items())
        return f"{self.statistic.split(':')[1]}({called})".replace("'", "")


class ClaimsFile(BaseModel):
    """A paper's claims file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paper: str
    claims: list[Claim] = Field(min_length=1)


def read_claims(path: str | Path) -> ClaimsFile:
    """Read and check a claims file; a UserError names the file, the claim and the nearest right key."""
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        claims = ClaimsFile.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(_explain(item, raw) for item in error.errors())) from None
    seen: set[str] = set()
    for claim in claims.claims:
        if claim.claim in seen:
            raise UserError(f"{path}: two claims are called {claim.claim}; give each an id of its own.")
        seen.add(claim.claim)
    return claims


def _explain(error: Any, raw: Any) -> str:
    """One pydantic error as a sentence."""
    place, location = "", list(error["loc"])
    model: type[BaseModel] = ClaimsFile
    if location[:1] == ["claims"] and len(location) > 1:
        row, model = raw["claims"][location[1]], Claim
        number = f"number {location[1] + 1}"
        name = row.get("claim", number) if isinstance(row, dict) else number
        place, location = f"claim {name}: ", location[2:]
    key = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        return f"{place}unknown key '{key}'; {nearest(key, list(model.model_fields))}"
    if error["type"] == "missing":
        return f"{place}key '{key}' is missing; add it"
    text = error["msg"].removeprefix("Value error, ")
    return f"{place}{key + ': ' if key else ''}{text}"


def nearest(word: str, known: Sequence[str]) -> str:
    """Say what to write instead of an unknown word."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"write '{close[0]}'" if close else f"write one of {', '.join(known)}"
