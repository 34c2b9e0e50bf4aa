"""Promises in tables: the columns `slo_ttft_p99_s`, `slo_itl_mean_ms`, `slo_tpot_mean_ms` and `slo_e2e_mean_s`."""

from __future__ import annotations

import math
from typing import Any

from twin.sources.table import Table
from twin.workload.adapter import PROMISES, Slo

#: Column -> field of `twin.workload.adapter.Slo`.
SLO_COLUMNS = {f"slo_{promise}": promise for promise in PROMISES}


def slos(table: Table) -> list[Slo | None]:
    """The promises of each row; an empty cell or a missing column is none, and None a row without any.

    Raises:
        InputError: names file, line, column and value.
    """
    given = {
        promise: table.numbers(column, above=0, empty=math.nan).tolist()
        for column, promise in SLO_COLUMNS.items()
        if column in table
    }
    rows: list[Slo | None] = []
    for row in range(len(table)):
        own: dict[str, Any] = {p: values[row] for p, values in given.items() if not math.isnan(values[row])}
        rows.append(Slo(**{"ttft_p99_s": None, **own}) if own else None)
    return rows
