"""A command's configuration composed from Python, as its command line composes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from twin.errors import InputError
from twin.server.groups import conf_dir

if TYPE_CHECKING:
    from twin.config.entry import App


def compose(app: App, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of a command in plain containers, as `App.run` gets it.

    Args:
        overrides: what stands on the command line, e.g. `engine.max_num_seqs=512`.

    Raises:
        InputError: an override cannot be read, names nothing that exists, or leaves a value out.
    """
    try:
        with _no_hydra(), hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = hydra.compose(app.config_name, list(overrides))
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OverrideParseException as error:
        raise InputError(
            f"override {error.override!r} cannot be read: {_first_lines(error)}",
            where="overrides",
            remedy="write group=option or key=value",
        ) from error
    except MissingMandatoryValue as error:
        key = error.full_key or "?"
        raise InputError(f"{key} is missing", where=key.partition(".")[0], remedy=f"add {key}=...") from error
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise InputError(
            _first_lines(error),
            where="overrides",
            remedy=f"python -m {app.name} --help lists the options, --cfg job all keys",
        ) from error
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@contextmanager
def _no_hydra() -> Iterator[None]:
    """Sets aside what the calling program may have initialised Hydra with, a program configured by Hydra itself."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def _first_lines(error: BaseException) -> str:
    """Hydra's message without the search path and the links, with its cause if that says more."""
    lines = [line.rstrip() for line in str(error).strip().splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), len(lines))
    text = "\n".join(line for line in lines[:end] if not line.startswith("See https://hydra.cc"))
    cause = str(error.__cause__ or "").splitlines()
    return f"{text}\n{cause[0]}" if cause and cause[0] not in text else text
