"""The words of a command line before Hydra reads them: a subcommand, and values that are meant literally."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twin.config.schema import did_you_mean
from twin.errors import InputError


def chosen(
    arguments: Sequence[str], known: Sequence[str], *, program: str, otherwise: str = ""
) -> tuple[str | None, list[str]]:
    """The subcommand, a first bare word, and the other words; None where the first word is no bare word.

    Raises:
        InputError: there is no such subcommand.
    """
    flags = next((i for i, word in enumerate(arguments) if not word.startswith("-v")), len(arguments))
    first = arguments[flags] if flags < len(arguments) else ""
    if not first.replace("_", "").isalnum():
        return None, list(arguments)
    if first not in known:
        raise InputError(
            f"unknown subcommand {first!r}{did_you_mean(first, known)}",
            where=program,
            remedy=f"use one of {', '.join(known) or '(none installed)'}{otherwise}",
        )
    return first, [*arguments[:flags], *arguments[flags + 1 :]]


def literal(words: Sequence[str], text: Collection[str]) -> list[str]:
    """Quotes the values of text options, so that a path may hold commas, blanks or brackets; drops a leading `+`.

    In a sweep (`-m`) commas separate values, so nothing is changed.

    Args:
        text: names of the options that are text.
    """
    if not text or any(word in ("-m", "--multirun") for word in words):
        return list(words)
    out = []
    for word in words:
        key, equals, value = word.lstrip("+").partition("=")
        if not equals or key.startswith("-"):
            out.append(word)
        elif key in text and value[:1] not in ("'", '"'):
            out.append(f"{key}='{_escaped(value)}'")
        else:
            out.append(f"{key}={value}")
    return out


def _escaped(value: str) -> str:
    """Between single quotes of Hydra's grammar: a backslash counts before a quote only."""
    trailing = len(value) - len(value.rstrip("\\"))
    return value.replace("'", "\\'") + "\\" * trailing
