"""Names of adapters and of the base model: what a server, a shell, a path or a cluster can carry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from twin.errors import InputError

#: vLLM takes names of any characters; those that end a line or a string do not survive scripts and headers.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
#: RFC 1123 label, the strictest of the names in a cluster.
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
#: What is left of a name before its hash.
READABLE = 40


def base_names(model: str, adapters: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Names under which the base model is served: its own, then every one that rows of rank 0 use.

    Args:
        adapters: id and rank.
    """
    return tuple(dict.fromkeys([model, *(adapter_id for adapter_id, rank in adapters if rank == 0)]))


def check_names(model: str, adapters: Iterable[tuple[str, int]], paths: Mapping[str, str]) -> None:
    """Refuses names that no server can answer to.

    Args:
        model: the base model's own name.
        adapters: id and rank.
        paths: id -> where it lies, for those whose workload says so.

    Raises:
        InputError: names the adapter and what to do.
    """
    known = tuple(adapters)
    base = set(base_names(model, known))
    for name in (model, *(adapter_id for adapter_id, _ in known)):
        if _CONTROL.search(name):
            raise InputError(
                f"the name {name!r} holds a control character, which no request header or script can carry",
                where="export",
                remedy="rename it, or use export=none",
            )
    for name in base:
        if name.startswith("-"):
            raise InputError(
                f"the base model cannot be served as {name!r}: vLLM reads it as an option",
                where="export, --served-model-name",
                remedy="choose a name that does not begin with a dash",
            )
    for adapter_id, rank in known:
        if rank == 0:
            continue
        if adapter_id in base:
            raise InputError(
                f"adapter {adapter_id!r} of rank {rank} has a name of the base model: a server answers to it once",
                where="export",
                remedy=f"rename the adapter, or give the row rank 0; the base model is {', '.join(sorted(base))}",
            )
        _check_path(adapter_id, paths.get(adapter_id))


def _check_path(adapter_id: str, path: str | None) -> None:
    if path is not None:
        if _CONTROL.search(path):
            raise InputError(f"adapter {adapter_id!r}: path {path!r} holds a control character", where="column path")
        return
    if any(part in ("", ".", "..") for part in adapter_id.split("/")):
        raise InputError(
            f"adapter {adapter_id!r}: its name is no path below export.adapter_dir",
            where="export",
            remedy="add a column `path` to the adapter file that says where it lies, or rename it",
        )


def dns_name(name: str) -> str:
    """A name for a cluster's object: the same if it is one already, else readable and with a hash.

    >>> dns_name("acme/support-bot")
    'acme-support-bot-...'
    """
    if DNS_LABEL.fullmatch(name) and len(name) <= READABLE:
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:READABLE].strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{readable if readable[:1].isalpha() else f'a-{readable}'.rstrip('-')}-{digest}"
