"""A plan on a calibration that nobody measured, simulated at both of its ends.

The planning model and the first verdict belong to the careful end: slower, with less memory. A GPU that is accepted
there is simulated once more at the hopeful end, because a faster server is not a healthier one in every respect (it
admits more at once, and preempts).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from placement.verify.verdict import Verification
from placement.verify.verifier import Progress, Verifier
from twin.figures.health import Constraint
from twin.server.calibration import Calibration
from twin.server.column import Column


@dataclass(frozen=True)
class BothEnds:
    """Accepts what another verifier accepts at both ends.

    Args:
        inner: judges at one end; what else it offers (`claim`, `peaks`, `max_rounds`) is offered here too.
        hopeful: calibrations at the other end, by the GPU types that have two; others are judged once.
    """

    inner: Verifier
    hopeful: Mapping[str, Calibration]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def expected_s(
        self, columns: Sequence[Column], calibrations: Mapping[str, Calibration], constraint: Constraint
    ) -> float:
        """Seconds for both ends; 0 where the inner verifier does not tell."""
        expected = getattr(self.inner, "expected_s", None)
        return 0.0 if expected is None else 2.0 * float(expected(columns, calibrations, constraint))

    def columns(
        self,
        columns: Sequence[Column],
        calibrations: Mapping[str, Calibration],
        constraint: Constraint,
        *,
        round_: int,
        progress: Progress | None = None,
        stop_at_refuted: bool = False,
        deadline: float = math.inf,
    ) -> Verification:
        """Verdicts at the given end; where all are good there, a GPU that is not at the hopeful end has the decision of
        that one."""
        checked = self.inner.columns(
            columns, calibrations, constraint, round_=round_, progress=progress, stop_at_refuted=stop_at_refuted,
            deadline=deadline,
        )  # fmt: skip
        if not checked.passed:
            return checked
        gpus = list(checked.gpus)
        which = [k for k, column in enumerate(columns) if column.setting.gpu_type in self.hopeful]
        other = self.inner.columns(
            [columns[k] for k in which], self.hopeful, constraint, round_=round_, progress=progress,
            stop_at_refuted=stop_at_refuted, deadline=deadline,
        )  # fmt: skip
        for k, hopeful in zip(which, other.gpus, strict=True):
            if not hopeful.accepted:
                # Figures stay those of the side that was planned on.
                told = f"on the hopeful side: {hopeful.reason}"
                gpus[k] = replace(gpus[k], decision=hopeful.decision, reason=told)
        return Verification(tuple(gpus), checked.peaks)
