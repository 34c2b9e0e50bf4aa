"""Several options of one group side by side: `hardware=[h100-sxm,l40s]`.

Hydra merges the options of such a list into one. Here each gets a package of its own (`hardware.h100-sxm`,
`hardware.l40s`): the list becomes an option that is made for it, which has them in its defaults list. A file of one's
own can do the same:

    defaults:
      - h100-sxm@h100-sxm
      - l40s@l40s
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.config_store import ConfigStore

from twin.errors import InputError

_LIST = re.compile(r"\[([^\[\]]*)\]")
_PROVIDER = "side by side"


@contextmanager
def without_made_groups() -> Iterator[None]:
    """Hides the options that `side_by_side` made, which Hydra keeps for all commands of a process.

    For commands without groups: there `hardware=l4` is an option with a value.
    """
    repo = ConfigStore.instance().repo
    hidden = {
        group: nodes
        for group, nodes in repo.items()
        if isinstance(nodes, dict) and nodes and all(getattr(n, "provider", "") == _PROVIDER for n in nodes.values())
    }
    for group in hidden:
        del repo[group]
    try:
        yield
    finally:
        repo.update(hidden)


def side_by_side(arguments: Sequence[str], group: str, along: Mapping[str, str]) -> list[str]:
    """The arguments with every list of options of a group as one option, which is made.

    Args:
        along: group -> name of an option that comes with each, if there is one, in the same packages; `{option}` is
            filled in, other groups are named as in a defaults list, e.g. `{"calibration": "${model}-{option}"}`. These
            groups stand behind `group` in the primary defaults list.

    Raises:
        InputError: a list is empty or names an option twice.
    """

    def made(match: re.Match[str]) -> str:
        return _option_of([name.strip().strip("'\"") for name in match[1].split(",")], group, along)

    return [_LIST.sub(made, a) if a.partition("=")[0] == group else a for a in arguments]


def _option_of(names: Sequence[str], group: str, along: Mapping[str, str]) -> str:
    """Name of the option that holds others side by side."""
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            f"{group}=[{','.join(names)}] names an option twice, or none", where=group, remedy="name each option once"
        )
    if len(names) == 1:
        return names[0]
    packages = {name: name.rpartition("/")[2].replace(".", "_") for name in names}
    defaults: list[dict[str, Any]] = [{f"/{group}@{package}": name} for name, package in packages.items()]
    for other, option in along.items():
        defaults += [
            {f"optional /{other}@_global_.{other}.{package}": option.replace("{option}", name)}
            for name, package in packages.items()
        ]
    made = "+".join(packages.values())
    ConfigStore.instance().store(group=group, name=made, node={"defaults": defaults}, provider=_PROVIDER)
    return made
