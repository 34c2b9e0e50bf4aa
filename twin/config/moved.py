"""Old names in `_target_` nodes: callables move, and configuration files that people wrote keep working."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from twin.config.folder import conf_dir

log = logging.getLogger(__name__)
TABLE = "moved.yaml"


def with_new_names(config: dict[str, Any], moved: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A configuration whose `_target_`s have their present names; a warning names each one that changed.

    Args:
        moved: old dotted name, of a callable or a module -> new one; None = the table of the project.
    """
    if moved is None:
        import yaml

        moved = yaml.safe_load((conf_dir() / TABLE).read_text())
    return {key: _renamed(value, moved, key) for key, value in config.items()}


def _renamed(node: Any, moved: Mapping[str, str], path: str) -> Any:
    if isinstance(node, (list, tuple)):
        return [_renamed(value, moved, f"{path}[{index}]") for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    renamed = {key: _renamed(value, moved, f"{path}.{key}") for key, value in node.items()}
    target = node.get("_target_")
    if isinstance(target, str) and (new := _new_name(target, moved)) is not None:
        log.warning("%s: _target_ %s is now called %s: change it in your configuration", path, target, new)
        renamed["_target_"] = new
    return renamed


def _new_name(target: str, moved: Mapping[str, str]) -> str | None:
    """The name under the longest entry that it starts with."""
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        new = moved.get(".".join(parts[:length]))
        if new is not None:
            return ".".join([new, *parts[length:]])
    return None
