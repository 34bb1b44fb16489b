"""Pinned public weights and data: what config/assets.yaml names, fetched by commit and hashed."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from memorization.config import Section, nearest, read_yaml
from memorization.errors import UserError
from memorization.provenance.record import sha256_file


class Asset(Section):
    """One repository at one commit."""

    kind: Literal["model", "dataset"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[list[str], Field(min_length=1)]
    licence: str
    gated: bool
    verified: bool
    used_by: list[str]


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
                problems.append(f"{path.name}: {name}.{key}: {one['msg'].lower()}{hint}{pin}")
    if problems:
        raise UserError("\n".join(problems))
    return assets


def fetch(asset: Asset, folder: Path) -> dict[str, Any]:
    """Download an asset's files into `folder` and return its manifest with the size and sha256 of each.

    The access token, if any, is read from the environment by the hub client and never stored. Only safetensors, JSON
    and parquet files are taken, never pickles or code.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    refused = [name for name in asset.files if not name.endswith((".safetensors", ".json", ".parquet"))]
    if refused:
        raise UserError(f"{asset.repo}: {', '.join(refused)}: name only .safetensors, .json and .parquet files")
    try:
        snapshot_download(
            asset.repo, repo_type=asset.kind, revision=asset.revision, allow_patterns=asset.files, local_dir=folder
        )
    except (HfHubHTTPError, OSError) as error:
        hint = " (accept its licence on the hub and set HF_TOKEN)" if asset.gated else ""
        raise UserError(f"{asset.repo} at {asset.revision[:12]} could not be downloaded: {error}{hint}") from error
    found = sorted(path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    missing = [pattern for pattern in asset.files if not any(path.match(pattern) for path in found)]
    if missing:
        raise UserError(
            f"{asset.repo} at {asset.revision[:12]} has no {', '.join(missing)}: correct config/assets.yaml"
        )
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in found
    }
    return {**asset.model_dump(), "files_fetched": files}
