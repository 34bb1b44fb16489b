"""Fixtures of the unit tests."""

from pathlib import Path

import pytest

from tiny import make_data


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one stored set."""
    root = tmp_path_factory.mktemp("results")
    make_data(root)
    return root
