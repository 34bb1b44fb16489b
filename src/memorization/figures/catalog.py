"""config/figures.yaml: which figures there are, and what each is made from."""

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from memorization.config import Config, Section, nearest, read_yaml
from memorization.errors import UserError


class FigureEntry(Section):
    """One figure or table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paper: str
    title: str
    source: str
    experiments: tuple[str, ...] = ()
    needs: tuple[Literal["metrics", "items"], ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)
    caption: str
    supports: tuple[str, ...] = ()
    width: Literal["column", "page"] = "column"
    aliases: tuple[str, ...] = Field(default=(), description="figures of the paper that this one holds, as targets")


def load_catalog(path: Path, config: Config) -> dict[str, FigureEntry]:
    """Return every figure by name; a UserError of one line a problem."""
    catalog, problems = {}, []
    for name, entry in read_yaml(path).items():
        try:
            catalog[name] = FigureEntry.model_validate(entry)
        except ValidationError as error:
            for one in error.errors():
                key = ".".join(map(str, one["loc"]))
                hint = nearest(key, list(FigureEntry.model_fields)) if one["type"] == "extra_forbidden" else ""
                problems.append(f"{path.name}: {name}.{key}: {one['msg'].lower()}{hint}")
            continue
        experiments = getattr(config, catalog[name].paper).experiments
        for experiment in catalog[name].experiments:
            if experiment not in experiments:
                problems.append(f"{path.name}: {name}: no experiment {experiment!r}{nearest(experiment, experiments)}")
    if problems:
        raise UserError("\n".join(problems))
    return catalog
