"""The environment: one set of pins, and every recipe installs from it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PINS = dict(
    line.split("==")
    for line in (ROOT / "envs" / "constraints.txt").read_text().splitlines()
    if "==" in line and not line.startswith("#")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *(line for name in ("gpu", "cluster", "dev") for line in extras[name])]
    return [Requirement(line) for line in listed]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_every_requirement_is_pinned_within_its_range(requirement):
    pins = {normal(name): version for name, version in PINS.items()}
    assert normal(requirement.name) in pins, f"add {requirement.name}==<version> to envs/constraints.txt"
    assert Version(pins[normal(requirement.name)]) in requirement.specifier


def test_what_is_installed_is_what_is_pinned():
    pins = {normal(name): Version(version) for name, version in PINS.items()}
    installed = {normal(d.metadata["Name"]): Version(d.version) for d in metadata.distributions()}
    differing = {
        name: f"{installed[name]} installed, {pin} pinned"
        for name, pin in pins.items()
        if name in installed and installed[name].public != pin.public
    }
    assert not differing, f"run `make setup`: {differing}"


def test_torch_is_the_cpu_build_where_there_is_no_gpu():
    """The guard of envs/install.sh against gigabytes of CUDA that nothing would use."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert torch.version.cuda is None, "remove .venv and run `make setup`; TORCH=default was set, or torch came first"


def test_torchvision_is_not_installed():
    """Its wheels break transformers' image side beside a CPU build of torch of another index."""
    assert "torchvision" not in {normal(d.metadata["Name"]) for d in metadata.distributions()}


@pytest.mark.parametrize("recipe", ["envs/Containerfile", "envs/memorization.def"])
def test_container_recipes_install_like_make_setup(recipe):
    text = (ROOT / recipe).read_text()
    assert "envs/install.sh /opt/venv" in text and "pip install" not in text
    assert f"python:{PYTHON}" in text


def test_the_conda_file_installs_from_the_same_constraints():
    file = yaml.safe_load((ROOT / "envs" / "environment.yml").read_text())
    assert f"python={PYTHON}" in file["dependencies"]
    pip = next(entry["pip"] for entry in file["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e ..[cluster,dev]"]
    assert (ROOT / "envs" / "install.sh").read_text().count("cluster,dev") == 1


PYTHON = PROJECT["requires-python"].removeprefix(">=")


def test_version_limits_agree_wherever_they_are_written():
    snakemake = next(r for r in requirements() if r.name == "snakemake")
    minimum = re.search(r'min_version\("([\d.]+)"\)', (ROOT / "Snakefile").read_text())
    assert minimum and f">={minimum[1]}" in str(snakemake.specifier)
    assert f"version_info < ({PYTHON.replace('.', ', ')})" in (ROOT / "envs" / "install.sh").read_text()


def test_the_install_script_pins_torch_before_anything_can_pull_it_in():
    text = (ROOT / "envs" / "install.sh").read_text()
    assert text.index("grep '^torch=='") < text.index('-e "$here')
