"""The one reader of command lines: composes a configuration, runs one job or a sweep, maps outcomes to exit codes.

Hydra ends the process with code 1 on a typo and a `sys.exit` inside a job ends a sweep silently. So Hydra is driven
from here (`twin.config.driver`): configuration errors become code 2, and a job returns its outcome instead of exiting.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from twin.config.components import check_trust
from twin.config.driver import Hydra, hydra_of, own_folder, parser
from twin.config.folder import conf_dir
from twin.config.instantiate import PROJECT_PACKAGES
from twin.config.logs import show_logs
from twin.config.mistakes import COMPOSITION_ERRORS, check_named, explained, is_mistake, missing_value, wrong_value
from twin.config.together import without_made_groups
from twin.config.words import literal
from twin.errors import InputError, PlacementError
from twin.files import unusable_place

log = logging.getLogger(__name__)

#: Name of the distribution.
PRODUCT = "adapter-placement"
INTERNAL_ERROR, BAD_INPUT, INTERRUPTED = 1, 2, 130
#: From harmless to severe: the exit code of a sweep is the worst of its jobs.
SEVERITY = (0, 4, 3, BAD_INPUT, INTERNAL_ERROR, INTERRUPTED)
#: Hydra installs handlers of its own for jobs and for itself; they would write to stdout, between tables.
NO_HANDLERS = ("hydra/job_logging", "hydra/hydra_logging")
#: Configurations of plain commands, apart from the groups: `calibration=...` means an option there.
PLAIN_FOLDER = "commands"
NO_FOLDER = ("hydra.run.dir=.", "hydra.sweep.dir=.", "hydra.sweep.subdir=.", "hydra.output_subdir=null")


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
        config_name: primary configuration in `conf/` (`conf/commands/` of a plain command), unless `config` is given.
        run: `(config, directory, quiet) -> (exit code, summary)`, from plain containers.
        print_sweep: shows the outcomes of a sweep.
        optional: groups that are absent from the configuration until they are added.
        hidden: groups of other commands, left out of the help.
        config: the primary configuration itself, for a command without groups.
        help: shown instead of the help that the configuration has.
        plain: without groups, and without output folders: what it writes goes where its options say.
        text: options whose values are taken as they stand (`twin.config.words.literal`).
        makes: groups whose option may be missing where it follows from others: the command makes it itself. One that
            the user names must exist.
    """

    name: str
    config_name: str
    run: Callable[[dict[str, Any], Path, bool], tuple[int, dict[str, Any] | None]]
    print_sweep: Callable[[Sequence[Outcome]], None]
    optional: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    help: str = ""
    plain: bool = False
    text: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


def job(app: App, verbosity: int, given: tuple[str, ...], cfg: DictConfig) -> Outcome:
    """One run. Known failures are printed and mapped; nothing leaves a sweep half done.

    Args:
        given: the overrides of the command line itself; those of a sweep may come from a file.
    """
    # A launcher may have started another process for it.
    show_logs(verbosity, PROJECT_PACKAGES)
    hydra_cfg = HydraConfig.get()
    directory = Path(hydra_cfg.runtime.output_dir)
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    overrides = tuple(o for o in OmegaConf.to_container(hydra_cfg.overrides.task) or () if isinstance(o, str))
    log.debug("%s in %s: %s", app.name, directory, " ".join(overrides) or "no overrides")
    code, summary = guarded(app, cfg, directory, sweep, given, overrides)
    return Outcome(code, str(directory), overrides, summary)


def guarded(
    app: App, cfg: DictConfig, directory: Path, sweep: bool, given: Sequence[str], overrides: Sequence[str] = ()
) -> tuple[int, dict[str, Any] | None]:
    """Runs a composed configuration and maps what happens to an exit code."""
    debug = False
    try:
        debug = OmegaConf.select(cfg, "debug", default=False) is True
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        assert isinstance(config, dict)
        config.pop("hydra", None)
        check_trust({str(k): v for k, v in config.items()}, given)
        check_named(app.makes, config, overrides)
        return app.run({str(k): v for k, v in config.items()}, directory, sweep)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED, None
    except PlacementError as error:
        show_error(error, debug)
        return error.exit_code, None
    except OSError as error:
        show_error(unusable_place(error, error.filename or directory), debug)
        return BAD_INPUT, None
    except MissingMandatoryValue as error:
        show_error(missing_value(error), debug)
        return BAD_INPUT, None
    except OmegaConfBaseException as error:
        show_error(wrong_value(error), debug)
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


def show_version(arguments: Sequence[str]) -> bool:
    """Prints the version of this product where `--version` asks for it; Hydra would print its own."""
    if "--version" not in arguments:
        return False
    print(f"{PRODUCT} {metadata.version(PRODUCT)}")
    return True


def run_app(app: App, arguments: Sequence[str]) -> int:
    """Parses the command line as Hydra does, runs, and returns the exit code."""
    if show_version(arguments):
        return 0
    flags = parser(f"python -m {app.name}")
    # Intermixed: flags may stand between overrides.
    args = flags.parse_intermixed_args(literal(arguments, app.text))
    show_logs(args.verbose, PROJECT_PACKAGES)
    # `debug=true` counts before anything is composed.
    debug = any(o.lower() in ("debug=true", "debug=1") for o in args.overrides)
    given = list(args.overrides)
    args.overrides = [*_settings(app, given), *given]
    if app.config is not None:
        ConfigStore.instance().store(name=app.config_name, node=app.config, provider=app.name)
    try:
        with without_made_groups() if app.plain else nullcontext(), _hydra(app, args) as hydra:
            return _dispatch(app, hydra, args, flags, args.config_name or app.config_name)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except PlacementError as error:
        show_error(error, debug)
        return error.exit_code
    except Exception as error:
        # First: Hydra's error about an option that does not exist is an OSError too.
        if is_mistake(error):
            show_error(explained(error, given, functools.partial(_with_choices, app, args, given), app.optional), debug)
        elif isinstance(error, OSError):
            # Of the folder that Hydra makes for a run; what a job meets is caught by `guarded`.
            problem = f"the output folder cannot be made: {error}"
            show_error(InputError(problem, where="hydra.run.dir", remedy="name a folder that can be written to"), debug)
        else:
            raise
        return BAD_INPUT


def _settings(app: App, given: Sequence[str]) -> list[str]:
    """What a command sets of Hydra itself; the command line may set it otherwise."""
    handlers = [f"{group}=none" for group in NO_HANDLERS if not any(o.startswith(group) for o in given)]
    return [*handlers, *NO_FOLDER] if app.plain else handlers


def _hydra(app: App, args: argparse.Namespace) -> AbstractContextManager[Hydra]:
    shipped = conf_dir() / PLAIN_FOLDER if app.plain else conf_dir()
    folder = Path(args.config_path).resolve() if args.config_path else shipped
    return hydra_of(app.name, folder, Path(args.config_dir).resolve() if args.config_dir else None)


def _with_choices(app: App, args: argparse.Namespace, given: Sequence[str]) -> DictConfig:
    """The configuration without the values of the command line, but with the options that it chooses of groups."""
    folders = [Path(f) for f in (conf_dir(), args.config_path, args.config_dir) if f]
    chosen = [
        o for o in given
        if (parts := o.lstrip("+").partition("="))[1]
        and any((folder / parts[0] / f"{parts[2]}.yaml").is_file() for folder in folders)
    ]  # fmt: skip
    try:
        return _composed(app, args, chosen)
    except COMPOSITION_ERRORS:  # one is of a group that the command does not have
        return _composed(app, args, [])


def _composed(app: App, args: argparse.Namespace, overrides: list[str]) -> DictConfig:
    with _hydra(app, args) as hydra:
        return hydra.compose_config(args.config_name or app.config_name, overrides, run_mode=RunMode.RUN)


def _dispatch(
    app: App, hydra: Hydra, args: argparse.Namespace, flags: argparse.ArgumentParser, config_name: str
) -> int:
    modes = [args.run, args.multirun, args.cfg is not None, args.info is not None, args.shell_completion]
    if sum(map(bool, modes)) > 1:
        raise InputError("more than one of --run, --multirun, --cfg, --info, --shell-completion", remedy="give one")
    task = functools.partial(job, app, args.verbose, tuple(args.overrides))
    if args.help:
        _show_help(app, hydra, args, flags, config_name)
    elif args.hydra_help:
        hydra.hydra_help(config_name=config_name, args_parser=flags, args=args)
    elif args.cfg:
        hydra.show_cfg(config_name, args.overrides, args.cfg, args.package, args.resolve)
    elif args.info:
        hydra.show_info(args.info, config_name=config_name, overrides=args.overrides)
    elif args.shell_completion:
        hydra.shell_completion(config_name=config_name, overrides=args.overrides)
    elif args.multirun or _asks_for_sweep(hydra, config_name, args.overrides):
        # Which job starts, from the launcher.
        logging.getLogger("hydra").setLevel(logging.INFO)
        overrides = [*args.overrides, *own_folder(hydra, config_name, args.overrides, "sweep"), "hydra.mode=MULTIRUN"]
        batches = hydra.multirun(config_name=config_name, task_function=task, overrides=overrides)
        outcomes = [ret.return_value for batch in batches or [] for ret in batch]
        app.print_sweep(outcomes)
        return max((o.exit_code for o in outcomes), key=SEVERITY.index, default=0)
    else:
        overrides = [*args.overrides, *own_folder(hydra, config_name, args.overrides, "run"), "hydra.mode=RUN"]
        outcome = hydra.run(config_name=config_name, task_function=task, overrides=overrides).return_value
        assert isinstance(outcome, Outcome)
        return outcome.exit_code
    return 0


def _show_help(
    app: App, hydra: Hydra, args: argparse.Namespace, flags: argparse.ArgumentParser, config_name: str
) -> None:
    """The command's own help, or Hydra's without the groups of other commands."""
    if app.help:
        print(app.help)
        return
    cfg = hydra.compose_config(config_name, args.overrides, run_mode=RunMode.RUN)
    HydraConfig.instance().set_config(cfg)
    text = hydra.get_help(cfg.hydra.help, hydra.get_sanitized_cfg(cfg, "job"), flags, resolve=args.resolve)
    print("\n".join(line for line in text.splitlines() if line.partition(":")[0] not in app.hidden))


def _asks_for_sweep(hydra: Hydra, config_name: str, overrides: list[str]) -> bool:
    """A configuration may set `hydra.mode: MULTIRUN` itself. Errors surface when the run composes again."""
    if not any(o.startswith("hydra.") or "experiment" in o for o in overrides if o not in NO_FOLDER):
        return False
    return bool(hydra.get_mode(config_name, overrides) == RunMode.MULTIRUN)
