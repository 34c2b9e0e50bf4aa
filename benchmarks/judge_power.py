"""How often verification accepts GPUs that it must not, and those that it must: columns with two kinds of hours.

A two-state column has an hour with many late requests now and then, and none late in between: no mean and no spread
shows that before the bad hour is seen. Synthetic results stand for the twin, so that the truth is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.old_judge import old_accepts
from placement.verify.verifier import TwinVerifier
from twin.config.compose import compose
from twin.config.instantiate import build
from twin.figures.health import Stable
from twin.figures.prediction import STABLE
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

#: Share of bad hours, and of late requests in them: mean 3, 2 and 2.5 % where 1 % is allowed.
FAMILIES = ((0.10, 0.30), (0.20, 0.10), (0.05, 0.50))
LEVELS = ("quick", "standard", "strict")
#: Requests of an hour, and the healthy column's share of late ones: half the limit.
REQUESTS, HEALTHY = 1000, 0.005
COLUMN = Column((Adapter("a", 8, 1.0, Lengths(200, 1.0), Lengths(200, 1.0)),), EngineSetting("gpu", 8, 8))

Window = Callable[[np.random.Generator], float]


def hour(late: float) -> Any:
    """The result of an hour with a share of late requests."""
    row = {
        "late_fraction": late,
        "adapter_late_fraction": late,
        "waiting_drift_per_s": 0.0,
        "served_fraction": 1.0,
        "queue": float(STABLE),
    }
    counts = np.array([REQUESTS])
    return SimpleNamespace(
        row=row,
        prediction_row=lambda: row,
        counts=counts,
        late_counts=np.round(late * counts).astype(np.int64),
        adapters=COLUMN.adapters,
        adapter_sums=np.zeros((3, 6, 1)),
        arrivals=REQUESTS,
        horizon_s=3600.0,
        waiting_series=np.ones(60),
    )


def two_state(bad_hours: float, late: float) -> Window:
    """Late share of an hour: `late` in a share of the hours, else none."""
    return lambda rng: late if rng.random() < bad_hours else 0.0


def steady(late: float) -> Window:
    """Late share of an hour whose requests are late independently of each other."""
    return lambda rng: float(rng.binomial(REQUESTS, late)) / REQUESTS


def verifier(level: str) -> TwinVerifier:
    """The verifier of `verify=level`."""
    from placement.command import APP
    from placement.config import COMPONENTS

    config = compose(APP, [f"verify={level}"])["verify"]
    found: TwinVerifier = build({**config, "threads": 1}, "verify", COMPONENTS, ())
    return found


def old_share(window: Window, columns: int, seed: int) -> float:
    """Share of such columns that the first version's rule accepts."""
    rng = np.random.default_rng(seed)
    return sum(old_accepts(lambda n: hour(window(rng)), Stable()) for _ in range(columns)) / columns


def accepted_share(judge: TwinVerifier, window: Window, columns: int, seed: int) -> tuple[float, float]:
    """Share of such columns that are accepted, and the mean number of hours that a verdict took."""
    rng = np.random.default_rng(seed)
    accepted = hours = 0
    for _ in range(columns):
        found = judge.judged([COLUMN], Stable(), lambda column, s, w: hour(window(rng)), first_seed=0)
        accepted += found.passed
        hours += found.gpus[0].hours
    return accepted / columns, hours / columns


@dataclass(frozen=True, slots=True)
class Power:
    """What a level accepts.

    Args:
        claimed_error, claimed_bad_hours: what it claims.
        bad_gpus_accepted: share of all two-state columns, the families in equal parts.
        by_family: the same of each family, as `share of bad hours x late`.
        healthy_accepted: share of steady columns at half the limit.
        hours_healthy: mean hours of a healthy column's verdict.
    """

    level: str
    claimed_error: float
    claimed_bad_hours: float
    bad_gpus_accepted: float
    by_family: dict[str, float]
    healthy_accepted: float
    hours_healthy: float


def power(level: str, columns: int, seed: int) -> Power:
    """Measures a level on `columns` two-state columns and as many healthy ones."""
    judge = verifier(level)
    each = -(-columns // len(FAMILIES))
    shares = {
        f"{bad:.0%} x {late:.0%}": accepted_share(judge, two_state(bad, late), each, seed + k)[0]
        for k, (bad, late) in enumerate(FAMILIES)
    }
    healthy, hours = accepted_share(judge, steady(HEALTHY), columns, seed + len(FAMILIES))
    return Power(
        level=level,
        claimed_error=judge.claim.error,
        claimed_bad_hours=judge.claim.bad_hours,
        bad_gpus_accepted=sum(shares.values()) / len(shares),
        by_family=shares,
        healthy_accepted=healthy,
        hours_healthy=hours,
    )
