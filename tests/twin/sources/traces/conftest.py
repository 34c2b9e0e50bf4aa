from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def traces(measured_data: Path) -> Path:
    folder = measured_data / "traces"
    if not folder.is_dir():
        pytest.skip(f"no traces in {folder}")
    return folder
