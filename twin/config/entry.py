"""The Hydra entry point of every command: composes a configuration, runs one job or a sweep, maps outcomes to codes.

Hydra ends the process with code 1 on a typo and a `sys.exit` inside a job ends a sweep silently. So this module
drives Hydra itself: configuration errors become code 2, and a job returns its outcome instead of exiting.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version as hydra_version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from twin.config.folder import conf_dir
from twin.config.schema import did_you_mean
from twin.errors import InputError, PlacementError

INTERNAL_ERROR, BAD_INPUT, INTERRUPTED = 1, 2, 130
#: From harmless to severe: the exit code of a sweep is the worst of its jobs.
SEVERITY = (0, 4, 3, BAD_INPUT, INTERNAL_ERROR, INTERRUPTED)
_SHOW_ALL = "--cfg job shows the configuration, --help the options"


@dataclass(frozen=True)
class Outcome:
    """What a job returns through Hydra; plain data, so that any launcher can carry it."""

    exit_code: int
    directory: str
    overrides: tuple[str, ...] = ()
    summary: dict[str, Any] | None = None


@dataclass(frozen=True)
class App:
    """A command that Hydra configures; its functions lie at the top of a module, so that launchers can carry it.

    Args:
        name: of the package, as in `python -m name`.
        config_name: primary configuration in `conf/`.
        run: `(config, directory, quiet) -> (exit code, summary)`, from plain containers.
        print_sweep: shows the outcomes of a sweep.
        optional: groups that are absent from the configuration until they are added.
        hidden: groups of other commands, left out of the help.
    """

    name: str
    config_name: str
    run: Callable[[dict[str, Any], Path, bool], tuple[int, dict[str, Any] | None]]
    print_sweep: Callable[[Sequence[Outcome]], None]
    optional: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def job(app: App, cfg: DictConfig) -> Outcome:
    """One run. Known failures are printed and mapped; nothing leaves a sweep half done."""
    hydra_cfg = HydraConfig.get()
    directory = Path(hydra_cfg.runtime.output_dir)
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    overrides = tuple(o for o in OmegaConf.to_container(hydra_cfg.overrides.task) or () if isinstance(o, str))
    code, summary = guarded(app, cfg, directory, sweep)
    return Outcome(code, str(directory), overrides, summary)


def guarded(app: App, cfg: DictConfig, directory: Path, sweep: bool) -> tuple[int, dict[str, Any] | None]:
    """Runs a composed configuration and maps what happens to an exit code."""
    debug = False
    try:
        debug = bool(cfg.get("debug", False))
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        assert isinstance(config, dict)
        config.pop("hydra", None)
        return app.run({str(k): v for k, v in config.items()}, directory, sweep)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED, None
    except PlacementError as error:
        show_error(error, debug)
        return error.exit_code, None
    except MissingMandatoryValue as error:
        key = error.full_key or "?"
        show_error(InputError(f"{key} is missing", where=key.partition(".")[0], remedy=f"set {key}=..."), debug)
        return BAD_INPUT, None
    except OmegaConfBaseException as error:
        show_error(InputError(str(error).strip(), remedy="check the value; --cfg job shows the configuration"), debug)
        return BAD_INPUT, None
    except Exception:  # noqa: BLE001  a bug: shown in full, and the sweep goes on
        print("internal error: this is a bug, not your input. Please report it with the text below.", file=sys.stderr)
        traceback.print_exc()
        return INTERNAL_ERROR, None


def show_error(error: BaseException, debug: bool = False) -> None:
    """One screen on stderr; the traceback only with `debug=true`."""
    print(f"error: {error}", file=sys.stderr)
    if debug:
        traceback.print_exception(error)


def run_app(app: App, arguments: Sequence[str]) -> int:
    """Parses the command line as Hydra does, runs, and returns the exit code."""
    parser = get_args_parser()
    parser.prog = f"python -m {app.name}"
    # Intermixed: flags may stand between overrides.
    args = parser.parse_intermixed_args(list(arguments))
    # `debug=true` counts before anything is composed.
    debug = any(o.lower() in ("debug=true", "debug=1") for o in args.overrides)
    hydra_version.setbase("1.3")
    try:
        with _hydra(app, args.config_dir, args.config_path) as hydra:
            return _dispatch(app, hydra, args, parser, args.config_name or app.config_name)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except PlacementError as error:
        show_error(error, debug)
        return error.exit_code
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if not isinstance(error, (HydraException, OmegaConfBaseException, YAMLError)) and "hydra" not in (
            error.__traceback__.tb_frame.f_globals.get("__name__", "") if error.__traceback__ else ""
        ):
            raise
        show_error(_explained(app, error, args), debug)
        return BAD_INPUT


@contextmanager
def _hydra(app: App, config_dir: str | None, config_path: str | None) -> Iterator[Hydra]:
    """Hydra with the shipped configuration, and `--config-dir` before it."""
    main = Path(config_path).resolve() if config_path else conf_dir()
    for folder, option in ((main, "--config-path"), (Path(config_dir or main).resolve(), "--config-dir")):
        if not folder.is_dir():
            raise InputError(f"{option} {str(folder)!r} is not a folder", remedy="give a folder with YAML files")
    path = create_config_search_path(f"file://{main}")
    if config_dir:
        path.prepend("command-line", f"file://{Path(config_dir).resolve()}")
    try:
        yield Hydra.create_main_hydra2(task_name=app.name, config_search_path=path)
    finally:
        GlobalHydra.instance().clear()


def _dispatch(
    app: App, hydra: Hydra, args: argparse.Namespace, parser: argparse.ArgumentParser, config_name: str
) -> int:
    modes = [args.run, args.multirun, args.cfg is not None, args.info is not None, args.shell_completion]
    if sum(map(bool, modes)) > 1:
        raise InputError("more than one of --run, --multirun, --cfg, --info, --shell-completion", remedy="give one")
    task = functools.partial(job, app)
    if args.help:
        _show_help(app, hydra, args, parser, config_name)
    elif args.hydra_help:
        hydra.hydra_help(config_name=config_name, args_parser=parser, args=args)
    elif args.cfg:
        hydra.show_cfg(config_name, args.overrides, args.cfg, args.package, args.resolve)
    elif args.info:
        hydra.show_info(args.info, config_name=config_name, overrides=args.overrides)
    elif args.shell_completion:
        hydra.shell_completion(config_name=config_name, overrides=args.overrides)
    elif args.multirun or _asks_for_sweep(hydra, config_name, args.overrides):
        overrides = [*args.overrides, "hydra.mode=MULTIRUN"]
        batches = hydra.multirun(config_name=config_name, task_function=task, overrides=overrides)
        outcomes = [ret.return_value for batch in batches or [] for ret in batch]
        app.print_sweep(outcomes)
        return max((o.exit_code for o in outcomes), key=SEVERITY.index, default=0)
    else:
        overrides = [*args.overrides, "hydra.mode=RUN"]
        outcome = hydra.run(config_name=config_name, task_function=task, overrides=overrides).return_value
        assert isinstance(outcome, Outcome)
        return outcome.exit_code
    return 0


def _show_help(
    app: App, hydra: Hydra, args: argparse.Namespace, parser: argparse.ArgumentParser, config_name: str
) -> None:
    """Hydra's help without the groups of other commands."""
    cfg = hydra.compose_config(config_name, args.overrides, run_mode=RunMode.RUN)
    HydraConfig.instance().set_config(cfg)
    text = hydra.get_help(cfg.hydra.help, hydra.get_sanitized_cfg(cfg, "job"), parser, resolve=args.resolve)
    print("\n".join(line for line in text.splitlines() if line.partition(":")[0] not in app.hidden))


def _asks_for_sweep(hydra: Hydra, config_name: str, overrides: list[str]) -> bool:
    """A configuration may set `hydra.mode: MULTIRUN` itself. Errors surface when the run composes again."""
    if not any("hydra" in o or "experiment" in o for o in overrides):
        return False
    return bool(hydra.get_mode(config_name, overrides) == RunMode.MULTIRUN)


def _explained(app: App, error: BaseException, args: argparse.Namespace) -> InputError:
    """A Hydra error with the valid names next to it."""
    lines = [line.rstrip() for line in str(error).strip().splitlines() if line.strip()]
    searched = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), len(lines))
    text = "\n".join(line for line in lines[:searched] if not line.startswith("See https://hydra.cc"))
    if isinstance(error, OverrideParseException):
        return InputError(
            f"override {error.override!r} cannot be read: {text}", remedy="write group=option or key=value"
        )
    cause = error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        text += f"\n{str(cause).splitlines()[0]}"
    if "Available options" in text:
        return InputError(text.replace("\t", "    "), remedy="choose one of the options listed")
    return InputError(text, remedy=_valid_names(app, text, args))


def _valid_names(app: App, text: str, args: argparse.Namespace) -> str:
    """The keys at the place that an override could not reach."""
    bad = next((w for w in text.replace("'", " ").split() if any(w == _key(o) for o in args.overrides)), None)
    if bad is None:
        return _SHOW_ALL
    try:
        with _hydra(app, args.config_dir, args.config_path) as hydra:
            cfg = hydra.compose_config(args.config_name or app.config_name, [], run_mode=RunMode.RUN)
    except (HydraException, OmegaConfBaseException, YAMLError, PlacementError):
        return _SHOW_ALL
    parent, _, last = bad.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    while parent and not isinstance(node, DictConfig):
        parent, _, last = parent.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
    names = sorted({str(k) for k in node if not str(k).startswith("_")} | (set(app.optional) if not parent else set()))
    names = [n for n in names if n != "hydra"]
    return f"valid{f' in {parent}' if parent else ''}: {', '.join(names)}{did_you_mean(last, names)}"


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


# Hydra's own errors are shown by this module; its hint about tracebacks would mislead.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")
