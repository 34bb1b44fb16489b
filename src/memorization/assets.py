"""Pinned public weights and data: what config/assets.yaml names, fetched by commit and hashed."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from memorization.config import Section, nearest, read_yaml
from memorization.errors import UserError
from memorization.provenance.record import sha256_file

# No code and no pickle of a model. A tensor of token ids (.pt) is a pickle too, but is read by torch.load with
# weights_only=True, which runs none of it; only data sets may have one.
SAFE = (".safetensors", ".json", ".parquet", ".jsonl")
RAW = "https://raw.githubusercontent.com/{repo}/{revision}/{path}"


class Asset(Section):
    """One repository at one commit."""

    kind: Literal["model", "dataset"]
    host: Literal["hub", "github"] = "hub"
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    files: Annotated[list[str], Field(min_length=1)]
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default={}, description="of files, where known: what is downloaded must have it"
    )
    licence: str
    gated: bool
    verified: bool
    used_by: list[str]
    note: str = ""

    @model_validator(mode="after")
    def consistent(self) -> "Asset":
        """What is verified is pinned; raw files have full names."""
        if self.verified and self.revision is None:
            raise ValueError("verified means that the commit was looked up: write it as `revision`")
        if self.host == "github" and any(set(name) & set("*?[") for name in self.files):
            raise ValueError("files of host github are taken one by one: write their full paths")
        return self


def load_assets(path: Path) -> dict[str, Asset]:
    """Return every asset by name; a UserError of one line a problem."""
    assets, problems = {}, []
    for name, entry in read_yaml(path).items():
        try:
            assets[name] = Asset.model_validate(entry)
        except ValidationError as error:
            for one in error.errors():
                key = ".".join(map(str, one["loc"]))
                hint = nearest(key, list(Asset.model_fields)) if one["type"] == "extra_forbidden" else ""
                pin = ": a pin is a commit of 40 hex digits, not a branch" if key == "revision" else ""
                said = one["msg"].removeprefix("Value error, ").lower()
                problems.append(f"{path.name}: {'.'.join(filter(None, (name, key)))}: {said}{hint}{pin}")
    if problems:
        raise UserError("\n".join(problems))
    return assets


def fetch(asset: Asset, folder: Path, name: str = "") -> dict[str, Any]:
    """Download an asset's files into `folder` and return its manifest with the size and sha256 of each.

    The access token, if any, is read from the environment by the hub client and never stored. Only safetensors, JSON,
    JSON lines and parquet files are taken, and of data sets tensors; never pickled models or code.
    """
    if asset.revision is None:
        raise UserError(
            f"{name or asset.repo}: no commit is written down yet: look up the newest commit of {asset.repo} where it "
            "is published and write its 40 digits as `revision` in config/assets.yaml"
        )
    taken = (*SAFE, ".pt") if asset.kind == "dataset" else SAFE
    refused = [name for name in asset.files if not name.endswith(taken)]
    if refused:
        raise UserError(f"{asset.repo}: {', '.join(refused)}: name only {', '.join(taken[:-1])} and {taken[-1]} files")
    at = f"{asset.repo} at {asset.revision[:12]}"
    try:
        if asset.host == "hub":
            from_hub(asset, folder)
        else:
            from_github(asset, folder)
    except OSError as error:  # those of the hub client and of urllib are OSErrors too
        hint = " (accept its licence on the hub and set HF_TOKEN)" if asset.gated else ""
        raise UserError(f"{at} could not be downloaded: {error}{hint}") from error
    found = sorted(path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    missing = [pattern for pattern in asset.files if not any(path.match(pattern) for path in found)]
    if missing:
        raise UserError(f"{at} has no {', '.join(missing)}: correct config/assets.yaml")
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in found
    }
    changed = [path for path, digest in asset.sha256.items() if files.get(path, {}).get("sha256") != digest]
    if changed:
        raise UserError(
            f"{at}: {', '.join(changed)}: not the file that config/assets.yaml describes (its sha256 differs): delete "
            f"{folder} and download it again, and if that does not help do not use it"
        )
    return {**asset.model_dump(), "files_fetched": files}


def from_hub(asset: Asset, folder: Path) -> None:
    """Download the files of a repository of the hub that match."""
    from huggingface_hub import snapshot_download

    snapshot_download(
        asset.repo, repo_type=asset.kind, revision=asset.revision, allow_patterns=asset.files, local_dir=folder
    )


def from_github(asset: Asset, folder: Path) -> None:
    """Download raw files of a commit."""
    from urllib.parse import quote
    from urllib.request import urlopen

    for path in asset.files:
        target = folder / path
        if folder.resolve() not in target.resolve().parents:
            raise UserError(f"{asset.repo}: {path} is no path inside a repository: correct config/assets.yaml")
        target.parent.mkdir(parents=True, exist_ok=True)
        url = RAW.format(repo=asset.repo, revision=asset.revision, path=quote(path))
        with urlopen(url, timeout=60) as answer:
            target.write_bytes(answer.read())


def unpinned(assets: dict[str, Asset]) -> list[str]:
    """Assets whose commit is still to be looked up."""
    return [name for name, asset in assets.items() if asset.revision is None]
