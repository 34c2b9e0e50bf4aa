"""Shared by all tests: repeatable property tests, and the folder of measured data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every run, and none judged by how long it took: a slow machine is no defect.
settings.register_profile("repeatable", derandomize=True, deadline=None)
# For long searches: HYPOTHESIS_PROFILE=thorough python -m pytest tests/twin/engine/test_invariants.py
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def measured_data() -> Path:
    """Folder of measured data (`ADAPTER_DATA`, else `../shared/data`); the test is skipped where it is absent."""
    folder = Path(os.environ.get("ADAPTER_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no measured data in {folder}: set ADAPTER_DATA to their folder")
    return folder
