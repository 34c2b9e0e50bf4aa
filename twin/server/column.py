"""A column: this multiset of adapters on this GPU type under this engine setting."""

from __future__ import annotations

from dataclasses import dataclass

from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter


@dataclass(frozen=True, slots=True)
class Column:
    """The unit of evaluation: the twin simulates it, a surrogate predicts it, a placement is a list of them."""

    adapters: tuple[Adapter, ...]
    setting: EngineSetting

    @property
    def rate_req_per_s(self) -> float:
        return sum(a.rate_req_per_s for a in self.adapters)

    @property
    def adapters_in_slots(self) -> int:
        """Adapters that need a slot (rank > 0)."""
        return sum(1 for a in self.adapters if a.rank > 0)
