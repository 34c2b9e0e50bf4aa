"""What of Hydra is used below its public interface, all of it in this module.

`hydra.main` throws the results of its jobs away and reads `sys.argv`; it offers no way to learn how the jobs of a sweep
ended (the exit code and the table of a sweep), to let flags stand between overrides, or to leave the groups of other
commands out of the help. `compose` has no output folders, launchers or sweepers. So the object behind `hydra.main` is
driven directly. `USED` holds the signatures that this relies on, of Hydra 1.3; a test compares them, and
`pyproject.toml` caps the version.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra as Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import configure_log
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from twin.config.components import targets, within
from twin.errors import InputError

VERSION_BASE = "1.3"
#: Method of `hydra._internal.hydra.Hydra` -> its parameters.
USED = {
    "create_main_hydra2": ("task_name", "config_search_path"),
    "compose_config": (
        "self", "config_name", "overrides", "run_mode", "with_log_configuration", "from_shell",
        "validate_sweep_overrides",
    ),
    "get_help": ("self", "help_cfg", "cfg", "args_parser", "resolve"),
    "get_mode": ("self", "config_name", "overrides"),
    "get_sanitized_cfg": ("self", "cfg", "cfg_type"),
    "hydra_help": ("self", "config_name", "args_parser", "args"),
    "multirun": ("self", "config_name", "task_function", "overrides", "with_log_configuration"),
    "run": ("self", "config_name", "task_function", "overrides", "with_log_configuration"),
    "shell_completion": ("self", "config_name", "overrides"),
    "show_cfg": ("self", "config_name", "overrides", "cfg_type", "package", "resolve"),
    "show_info": ("self", "info", "config_name", "overrides", "run_mode"),
}  # fmt: skip

#: Parts of Hydra's own node that it builds by their `_target_`, and the packages that those may come from.
BUILT, PLUGINS = ("callbacks", "launcher", "sweeper"), ("hydra", "hydra_plugins")


class CheckedHydra(Hydra):
    """Hydra builds callbacks, launcher and sweeper before any code of ours sees the configuration."""

    def compose_config(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        with_log_configuration: bool = False,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The composed configuration.

        Raises:
            InputError: Hydra would build something that is not Hydra's.
        """
        cfg = super().compose_config(config_name, overrides, run_mode, False, from_shell, validate_sweep_overrides)
        for part in BUILT:
            node = OmegaConf.select(cfg, f"hydra.{part}")
            plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else None
            for place, target in targets(plain, f"hydra.{part}"):
                if not isinstance(target, str) or not within(target, PLUGINS):
                    raise InputError(
                        f"_target_ {target!r} may not be instantiated: it is not part of Hydra",
                        where=place,
                        remedy=f"leave it out; {', '.join(BUILT)} of Hydra and its plug-ins are allowed",
                    )
        if with_log_configuration:
            configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
        return cfg


def own_folder(hydra: Hydra, config_name: str, overrides: list[str], kind: str) -> list[str]:
    """The override that gives a run or sweep a folder that no other has, made here; none where its place is given.

    Hydra names folders by the second, so that two runs in one second would share one.

    Args:
        kind: `run` or `sweep`.

    Raises:
        OSError: the folder cannot be made.
    """
    if any(o.lstrip("+").startswith(f"hydra.{kind}.dir=") for o in overrides):
        return []
    mode = RunMode.RUN if kind == "run" else RunMode.MULTIRUN
    node = hydra.compose_config(config_name, overrides, run_mode=mode).hydra[kind]
    raw = OmegaConf.to_container(node, resolve=False)
    if not isinstance(raw, dict) or "${now:" not in str(raw["dir"]):
        return []
    wanted = Path(str(node.dir))
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for folder in itertools.chain([wanted], (wanted.with_name(f"{wanted.name}-{n}") for n in itertools.count(2))):
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return [f"hydra.{kind}.dir='{folder}'"]
    raise AssertionError("counting ends never")


def parser(program: str) -> argparse.ArgumentParser:
    """Hydra's own flags, and `-v`."""
    flags = get_args_parser()
    flags.prog = program
    flags.add_argument("-v", "--verbose", action="count", default=0, help="Say more on stderr; -vv for details")
    return flags


@contextmanager
def hydra_of(name: str, folder: Path, extra: Path | None) -> Iterator[Hydra]:
    """Hydra for one command line.

    Args:
        name: of the job.
        folder: the configuration.
        extra: searched before it (`--config-dir`).

    Raises:
        InputError: a folder does not exist.
    """
    for place, option in ((folder, "--config-path"), (extra, "--config-dir")):
        if place is not None and not place.is_dir():
            raise InputError(f"{option} {str(place)!r} is not a folder", remedy="give a folder with YAML files")
    version.setbase(VERSION_BASE)
    path = create_config_search_path(f"file://{folder}")
    if extra is not None:
        path.prepend("command-line", f"file://{extra}")
    try:
        yield CheckedHydra.create_main_hydra2(task_name=name, config_search_path=path)
    finally:
        GlobalHydra.instance().clear()


# Hydra's own errors are shown by `twin.config.mistakes`; its hint about tracebacks would mislead.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")
