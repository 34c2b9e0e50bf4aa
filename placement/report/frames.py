"""A result as pandas DataFrames. What they hold is read from the document, so that a stored one gives the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


def gpus_frame(document: Mapping[str, Any]) -> DataFrame:
    """One row a GPU, by `gpu_id`.

    Columns: `gpu_type`, the flags of vLLM, `adapters` (with one of a rank above 0), `rate_req_per_s`, `load` (share of
    the largest healthy one), every other metric of `placement.json` as `predicted_...` and, where it was verified,
    `simulated_...` (units in the names), and `decision` with its `reason`. NaN where a source does not tell.

    Args:
        document: what `Result.to_dict` returned, or a `placement.json`.
    """
    import pandas as pd

    rows = []
    for gpu in document["gpus"]:
        predicted = dict(gpu["predicted"])
        rate, load = predicted.pop("rate_req_per_s", None), predicted.pop("load", None)
        rows.append(
            {
                "gpu_id": gpu["gpu_id"],
                "gpu_type": gpu["gpu_type"],
                **gpu["setting"],
                "adapters": sum(a["rank"] > 0 for a in gpu["adapters"]),
                "rate_req_per_s": rate,
                "load": _number(load),
                **{f"predicted_{name}": _number(value) for name, value in predicted.items()},
                **{f"simulated_{name}": _number(value) for name, value in gpu["simulated"].items()},
                "decision": gpu["decision"],
                "reason": gpu["reason"],
            }
        )
    # Without rows there would be no column to name the index by.
    return pd.DataFrame(rows or None, columns=None if rows else ["gpu_id"]).set_index("gpu_id")


def adapters_frame(document: Mapping[str, Any]) -> DataFrame:
    """One row an adapter and GPU: several for an adapter with replicas. Rank 0 = requests to the base model.

    Columns: `adapter_id`, `gpu_id`, `rank`, `share` of its requests, `rate_req_per_s` of them, and for each promise
    that somebody has (`ttft_p99_s`, `itl_mean_ms`, ...) `..._promised`, `..._simulated` (of the TTFT: the share of
    requests that are late) and `..._use`, the share of what is allowed. NaN where there is no promise, or nothing was
    simulated.

    Args:
        document: what `Result.to_dict` returned, or a `placement.json`.
    """
    import pandas as pd

    rows = []
    for gpu in document["gpus"]:
        promises = {
            (adapter["adapter_id"], name): adapter
            for name, entry in gpu["promises"].items()
            for adapter in entry["adapters"]
        }
        for adapter in gpu["adapters"]:
            row = {
                "adapter_id": adapter["adapter_id"],
                "gpu_id": gpu["gpu_id"],
                "rank": adapter["rank"],
                "share": adapter["share"],
                "rate_req_per_s": adapter["rate_req_per_s"],
            }
            for name in gpu["promises"]:
                own = promises.get((adapter["adapter_id"], name), {})
                row |= {f"{name}_{what}": _number(own.get(what)) for what in ("promised", "simulated", "use")}
            rows.append(row)
    columns = ["adapter_id", "gpu_id", "rank", "share", "rate_req_per_s"]
    return pd.DataFrame(rows, columns=None if rows else columns)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
