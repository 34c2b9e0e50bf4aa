"""Where the configuration lies that comes with the project."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """Folder of the shipped configuration.

    An installed project holds it as the data of `twin.conf`; a checkout, and an editable install of one, beside `twin`.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
