"""What Hydra and OmegaConf find wrong, as errors with the valid names next to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from twin.config.folder import conf_dir
from twin.config.schema import did_you_mean
from twin.errors import InputError, PlacementError

#: Errors of a composition that the user caused.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)
#: Hydra's advice that does not hold here: what is added without being known is refused as well.
_BESIDE_THE_POINT = ("See https://hydra.cc", "To append to your config use")
_SHOW_ALL = "--cfg job shows the configuration, --help the options"


def is_mistake(error: BaseException) -> bool:
    """Whether the user caused it: an error of a composition, or Hydra's own ValueError about its flags."""
    if isinstance(error, COMPOSITION_ERRORS):
        return True
    place = error.__traceback__.tb_frame.f_globals.get("__name__", "") if error.__traceback__ else ""
    return isinstance(error, ValueError) and "hydra" in place


def check_named(groups: Collection[str], config: Mapping[Any, Any], overrides: Sequence[str]) -> None:
    """Refuses an option that the user names and that does not exist, of groups that may be missing.

    Raises:
        InputError: names the options there are.
    """
    for override in overrides:
        group, value = _key(override), override.partition("=")[2]
        if group in groups and value not in ("", "null") and config.get(group) is None:
            known = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
            raise InputError(
                f"{group} {value!r} does not exist{did_you_mean(value, known)}",
                where=group,
                remedy=f"leave {group} out, or choose one of: {', '.join(known)}",
            )


def missing_value(error: MissingMandatoryValue) -> InputError:
    """A `???` that was not filled in."""
    key = error.full_key or "?"
    return InputError(f"{key} is missing", where=key.partition(".")[0], remedy=f"set {key}=...")


def wrong_value(error: OmegaConfBaseException) -> InputError:
    """A value that the configuration cannot hold."""
    return InputError(str(error).strip(), remedy="check the value; --cfg job shows the configuration")


def explained(
    error: BaseException, overrides: Sequence[str], compose: Callable[[], Any], optional: Collection[str]
) -> InputError:
    """A failed composition in one screen.

    Args:
        overrides: as they were given.
        compose: the configuration without them, but with the options that they choose.
        optional: groups that may be added although the configuration has none.
    """
    lines = [line.rstrip() for line in str(error).strip().splitlines() if line.strip()]
    searched = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), len(lines))
    text = "\n".join(line for line in lines[:searched] if not line.startswith(_BESIDE_THE_POINT))
    if isinstance(error, OverrideParseException):
        return InputError(f"override {error.override!r} cannot be read: {text}", remedy=_quoting(str(error.override)))
    if ambiguous := re.search(r"Ambiguous value for argument '([^']*)'", text):
        key = _key(ambiguous[1])
        given = next((o for o in overrides if _key(o) == key), key)
        return InputError(
            f"{given!r} may be a list, a text with commas, or several values of a sweep",
            where=key,
            remedy=f"{_quoting(given)}; a list is {key}=[a,b], a sweep has -m",
        )
    cause = error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        text += f"\n{str(cause).splitlines()[0]}"
    if "Available options" in text:
        first, *options = text.replace("\t", "    ").splitlines()
        asked = re.search(r"'[^']*/([^'/]+)'", first)
        close = did_you_mean(asked[1], [line.strip() for line in options]) if asked else ""
        return InputError("\n".join([first + close, *options]), remedy="choose one of the options listed")
    return InputError(text, remedy=_valid_names(text, overrides, compose, optional))


def _quoting(override: str) -> str:
    """How to write a value with characters of Hydra's grammar, for a shell: `'workload.path="adapters (1).csv"'`."""
    key, equals, value = override.partition("=")
    if not equals or not value:
        return "write group=option or key=value"
    escaped = value.strip("\"'").replace('"', '\\"')
    return f"""write group=option or key=value; put a value with blanks, brackets, '=', ',' or '~' into quotes: {
        shlex.quote(f'{key}="{escaped}"')
    }"""


def _valid_names(text: str, overrides: Sequence[str], compose: Callable[[], Any], optional: Collection[str]) -> str:
    """The keys at the place that an override could not reach."""
    bad = next((w for w in text.replace("'", " ").split() if any(w == _key(o) for o in overrides)), None)
    if bad is None:
        return _SHOW_ALL
    try:
        cfg = compose()
    except (*COMPOSITION_ERRORS, PlacementError):
        return _SHOW_ALL
    parent, _, last = bad.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    while parent and not isinstance(node, DictConfig):
        parent, _, last = parent.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
    names = sorted({str(k) for k in node if not str(k).startswith("_")} | (set(optional) if not parent else set()))
    names = [n for n in names if n != "hydra"]
    # A key of a group that was given without it.
    inside = [f"{n}.{bad}" for n in names if not parent and isinstance(cfg.get(n), DictConfig) and bad in list(cfg[n])]
    near = f" (did you mean {inside[0]!r}?)" if inside else did_you_mean(last, names)
    return f"valid{f' in {parent}' if parent else ''}: {', '.join(names)}{near}"


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0]
