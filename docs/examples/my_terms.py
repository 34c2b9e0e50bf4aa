"""A term of one's own: requests in system on the busiest GPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BusiestGpu:
    weight: float = 1.0
    scale: float = 1.0  # requests that are worth one point
    name: str = "busiest"
    unit: str = "requests"
    aggregate: str = "max"  # over GPUs; "sum" adds

    def cost(self, columns, context):
        """Natural value of each of P columns, (P,)."""
        return columns.requests_in_system
