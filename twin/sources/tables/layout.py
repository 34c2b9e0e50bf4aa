"""Which column of a file is which of ours: as the user says it, as a known format has it, by name, or refused."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from twin.errors import InputError
from twin.sources.tables.files import Source
from twin.sources.tables.formats import OUTCOMES, Format, located, plain, recognised

#: Most columns of a file that a message lists.
LISTED = 20


@dataclass(frozen=True, slots=True)
class Form:
    """How the user says that a table is written (options of `conf/workload/`).

    Args:
        columns: our column -> the file's; None = none of them, although one has such a name.
        decimal: `.` or `,`; None = told from the cells.
        time_unit: of times that are numbers: `s`, `ms`, `us`, `ns`, or `excel` (days since 1899-12-30); None = told
            from their size.
        time_zone: of times without an offset, a name such as `Europe/Berlin`.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    decimal: str | None = None
    time_unit: str | None = None
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where our columns are in a file.

    Args:
        columns: our column -> the file's.
        ignored: columns of the file that nobody asked for.
        format: the known format, if it is one.
    """

    columns: dict[str, str]
    ignored: tuple[str, ...] = ()
    format: Format | None = None

    def other_names(self) -> dict[str, str]:
        """Our columns that the file calls otherwise."""
        return {ours: theirs for ours, theirs in self.columns.items() if plain(theirs) != ours}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader looks for in a file.

    Args:
        required, optional: our columns.
        what: what the file holds, for messages, e.g. "adapter file".
        names: our column -> what else it is called.
        formats: formats to recognise.
        form: what the user says of it.
        extra_columns: whether other columns are left unread instead of refused. A near miss of an optional column's
            name is refused in any case.
    """

    required: Sequence[str]
    optional: Sequence[str]
    what: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    formats: Sequence[Format] = ()
    form: Form = field(default_factory=Form)
    extra_columns: bool = False

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.required, *self.optional)

    @property
    def listing(self) -> str:
        return f"required columns: {', '.join(self.required)}" + (
            f"; optional: {', '.join(self.optional)}" if self.optional else ""
        )

    def score(self, header: Sequence[str]) -> int:
        """How many of our columns a header has."""
        return len(located(header, self.known, self.names))

    def layout(self, header: Sequence[str], source: Source) -> Layout:
        """Finds our columns.

        Raises:
            InputError: the header is empty or names a column twice, a required column is missing, or a column is
                unknown where none may be.
        """
        where = f"{source}, line 1"
        if not any(header):
            raise InputError(f"the {self.what} is empty or its first line is", where=str(source), remedy=self.listing)
        names = [name for name in header if name]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"column {twice!r} appears twice", where=where, remedy="keep one of them")
        found, form = self._found(names, where)
        ignored = tuple(name for name in names if name not in found.values())
        missing = [name for name in self.required if name not in found]
        for name in missing:
            raise InputError(
                f"column {name!r} is missing; the file has {_listed(names)}",
                where=where,
                remedy=f"{_did_you_mean(name, ignored)}say which one it is, workload.columns={{{name}: ...}}; "
                + self.listing,
            )
        # The columns of a known format are as they should be, and a count of `errors` is no misspelt `error`.
        misspelt = () if form is not None else [
            n for n in self.optional if n not in found and n not in self.form.columns and n not in OUTCOMES
        ]  # fmt: skip
        for name in ignored:
            near = _close(name, misspelt)
            if near or not self.extra_columns:
                raise InputError(
                    f"unknown column {name!r}",
                    where=where,
                    remedy=(f"did you mean {near!r}? " if near else "remove or rename it; ") + self.listing,
                )
        return Layout(found, ignored, form)

    def _found(self, names: Sequence[str], where: str) -> tuple[dict[str, str], Format | None]:
        form = recognised(names, self.formats)
        by_name = located(names, self.known, form.columns if form else self.names)
        if form is not None:
            theirs = {plain(name): name for name in reversed(names)}
            by_name = {
                ours: next((theirs[o] for o in others if o in theirs), by_name.get(ours, ""))
                for ours, others in form.columns.items()
            }
            by_name = {ours: name for ours, name in by_name.items() if name}
        said = self._said(names, where)
        found = {ours: name for ours, name in by_name.items() if ours not in self.form.columns}
        return {ours: name for ours, name in found.items() if name not in said.values()} | said, form

    def _said(self, names: Sequence[str], where: str) -> dict[str, str]:
        spelt = {plain(name): name for name in reversed(names)}
        said: dict[str, str] = {}
        for ours, theirs in self.form.columns.items():
            if ours not in self.known:
                near = _close(ours, self.known)
                raise InputError(
                    f"workload.columns names {ours!r}, which is no column of a {self.what}"
                    + (f" (did you mean {near!r}?)" if near else ""),
                    where="option workload.columns",
                    remedy=self.listing,
                )
            if theirs is None:
                continue
            name = theirs if theirs in names else spelt.get(plain(str(theirs)))
            if name is None:
                raise InputError(
                    f"column {theirs!r} is missing; the file has {_listed(names)}",
                    where=f"{where} (workload.columns.{ours})",
                    remedy=f"name the column that holds the {ours}",
                )
            said[ours] = name
        return said


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:LISTED])
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _close(name: str, names: Collection[str]) -> str:
    return next(iter(difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.8)), "")


def _did_you_mean(name: str, unknown: Sequence[str]) -> str:
    near = {candidate.lower(): candidate for candidate in unknown}
    match = _close(name, list(near))
    return f"rename {near[match]!r} to {name!r}, or " if match else ""
