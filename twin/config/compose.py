"""A command's configuration composed from Python, as its command line composes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from twin.config.driver import VERSION_BASE
from twin.config.folder import conf_dir
from twin.config.mistakes import COMPOSITION_ERRORS, check_named, explained, missing_value

if TYPE_CHECKING:
    from twin.config.entry import App


def compose(app: App, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of a command in plain containers, as `App.run` gets it.

    Args:
        overrides: what stands on the command line, e.g. `engine.max_num_seqs=512`.

    Raises:
        InputError: an override cannot be read, names nothing that exists, or leaves a value out.
    """

    def composed(words: Sequence[str]) -> DictConfig:
        with _no_hydra(), hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
            return hydra.compose(app.config_name, list(words))

    try:
        config = OmegaConf.to_container(composed(overrides), resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise missing_value(error) from error
    except COMPOSITION_ERRORS as error:
        raise explained(error, overrides, lambda: composed(()), app.optional) from error
    assert isinstance(config, dict)
    check_named(app.makes, config, overrides)
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
