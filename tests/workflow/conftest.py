"""Fixtures of the workflow tests."""

from pathlib import Path

import pytest

from workspace import Workspace, make_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh copy with a micro configuration."""
    return make_workspace(tmp_path)
