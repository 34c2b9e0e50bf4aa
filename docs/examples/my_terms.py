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


@dataclass(frozen=True)
class Power:
    """Watts drawn by the GPUs: idle, for each step, and for each output token."""

    weight: float = 1.0
    scale: float = 100.0  # watts that are worth one point
    name: str = "power"
    unit: str = "W"
    aggregate: str = "sum"
    idle_w: float = 120.0
    step_j: float = 4.0
    token_j: float = 0.1

    def cost(self, columns, context):
        """Watts of each of P columns, (P,)."""
        return self.idle_w + self.step_j / columns.pace_s + self.token_j * columns.output_tokens_per_s
