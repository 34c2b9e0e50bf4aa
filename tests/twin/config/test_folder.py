"""The configuration is found where a wheel puts it, and in a checkout."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

from twin.config import folder


def test_an_installed_copy_comes_before_the_checkout(tmp_path: Path) -> None:
    module = tmp_path / "twin" / "config" / "folder.py"
    module.parent.mkdir(parents=True)
    shutil.copy(str(folder.__file__), module)

    def found() -> Path:
        place = runpy.run_path(str(module))["conf_dir"]()
        assert isinstance(place, Path)
        return place.relative_to(tmp_path.resolve())

    assert found() == Path("conf")
    (tmp_path / "twin" / "conf").mkdir()
    assert found() == Path("twin/conf")


def test_the_shipped_configuration_is_there() -> None:
    assert {"config.yaml", "twin.yaml", "batching.yaml"} <= {p.name for p in folder.conf_dir().glob("*.yaml")}
