"""Commands without groups, whose options are the fields of a dataclass, and programs of several such commands.

@dataclass(frozen=True, slots=True)
class Options:
    data: str                                        # must be given
    seeds: Annotated[int, Range(1)] = 5

APP = command("benchmarks.mine", Options, run, about=__doc__)
sys.exit(run_app(APP, sys.argv[1:]))
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from twin.config.entry import App, Outcome, run_app, show_error, show_version
from twin.config.schema import parse
from twin.config.words import chosen
from twin.errors import InputError

T = TypeVar("T")
_FLAGS = "Flags: -v what is done, -vv details, -m sweep, --cfg job, --help"


def command(
    name: str, options: type[T], run: Callable[[T], int | None], *, about: str | None, config_name: str = ""
) -> App:
    """A command whose configuration is a dataclass.

    Args:
        name: as in `python -m name`.
        options: names, types, ranges and defaults; a field without a default must be given.
        run: gets the checked options; returns the exit code (None = 0).
        about: shown by `--help`, above the options.
        config_name: a file in `conf/commands/` that holds the values instead of the dataclass.
    """
    defaults = {f.name: f.default for f in fields(options)}  # type: ignore[arg-type]
    values = {name: "???" if value is MISSING else value for name, value in defaults.items()}
    listing = " ".join(f"{name}={'...' if value is MISSING else value}" for name, value in defaults.items())
    return App(
        name=name,
        config_name=config_name or name.replace(" ", "_").replace(".", "_"),
        run=functools.partial(_run, options, run),
        print_sweep=_no_table,
        config=None if config_name else {**values, "debug": False},
        help="\n".join([(about or "").strip(), "", f"Options: {listing}", _FLAGS]),
        plain=True,
        text=tuple(name for name, kind in typing.get_type_hints(options).items() if kind is str),
    )


def run_subcommand(program: str, commands: Mapping[str, App], arguments: Sequence[str], *, about: str | None) -> int:
    """Runs one of the commands of a program; returns the exit code."""
    if show_version(arguments):
        return 0
    try:
        name, rest = chosen(arguments, list(commands), program=program)
        if name is None and not {"-h", "--help"} & set(arguments):
            raise InputError(
                "no subcommand is given", where=program, remedy=f"use one of {', '.join(commands)}, or --help"
            )
    except InputError as error:
        show_error(error)
        return error.exit_code
    if name is None:
        print((about or "").strip())
        return 0
    return run_app(commands[name], rest)


def _run(
    options: type[T], run: Callable[[T], int | None], config: dict[str, Any], directory: Path, quiet: bool
) -> tuple[int, None]:
    return run(parse(options, {k: v for k, v in config.items() if k != "debug"}, "")) or 0, None


def _no_table(outcomes: Sequence[Outcome]) -> None:
    """Each job has printed its own result."""
