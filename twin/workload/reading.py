"""What was done to recorded requests on the way to a workload: for terminal, report and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twin.wording import counted, number, percent

#: Columns, and adapters, that a sentence names.
NAMED = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """The account of a log or trace.

    Args:
        source: the file or files.
        format: the known format, "" where columns were found by name.
        requests_read: rows.
        left_out: reason -> rows that were not planned for.
        span_s: seconds from the first request to the last.
        cut_requests, cut_tokens_share: requests cut to a longest length, and the share of all tokens that went.
        cold_adapters: adapters without requests.
        cold: what became of them.
        columns: our column -> the file's, where it is called otherwise.
        ignored: columns that were not used.
        notes: what else was assumed.
    """

    source: str
    format: str = ""
    requests_read: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    span_s: float = 0.0
    cut_requests: int = 0
    cut_tokens_share: float = 0.0
    cold_adapters: tuple[str, ...] = ()
    cold: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """As plain containers, for JSON."""
        return {
            "source": self.source,
            "format": self.format or None,
            "requests_read": self.requests_read,
            "requests_left_out": dict(self.left_out),
            "span_s": self.span_s,
            "requests_cut": self.cut_requests,
            "tokens_cut_share": self.cut_tokens_share,
            "adapters_without_requests": list(self.cold_adapters),
            "adapters_without_requests_are": self.cold or None,
            "columns": dict(self.columns),
            "columns_ignored": list(self.ignored),
            "notes": list(self.notes),
            "summary": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """What people have to know, the most important first."""
        if not self.requests_read:  # rates were recorded, not requests
            return [f"Read from {self.source} ({self.format}), spanning {_time(self.span_s)}.", *self.notes]
        kept = self.requests_read - sum(self.left_out.values())
        text = f"{self.requests_read:,} request{'' if self.requests_read == 1 else 's'} read from {self.source}"
        text += f" ({self.format})" if self.format else ""
        text += f", spanning {_time(self.span_s)}"
        if self.left_out:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.left_out.items())
            text += f"; {sum(self.left_out.values()):,} left out ({reasons}), {kept:,} planned for"
        said = [text + "."]
        if self.cut_requests:
            said.append(
                f"{counted(self.cut_requests, 'request')} ({percent(self.cut_requests / max(kept, 1))}) cut to the "
                f"longest length, which takes away {percent(self.cut_tokens_share)} of all tokens."
            )
        if self.cold_adapters:
            count = counted(len(self.cold_adapters), "adapter")
            said.append(f"{count} without requests ({_some(self.cold_adapters)}): {self.cold}.")
        if self.columns:
            said.append("Columns: " + ", ".join(f"{ours} = {theirs}" for ours, theirs in self.columns.items()) + ".")
        if self.ignored:
            said.append(f"Columns not used: {_some(self.ignored)}.")
        return [*said, *self.notes]


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} s"
