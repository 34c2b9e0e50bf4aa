"""A term of one's own: requests in system on the busiest GPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BusiestGpu:
    weight: float = 1.0
    scale: float = 1.0  # requests that are worth one point
    name: str = "busiest"
    unit: str = "requests"
    aggregate: str = "max"  # over GPUs; "sum" adds

    def cost(self, option, phi, context):
        """Natural value of P columns under one setting, (P,); phi (P, F) are summed features."""
        return option.requests_in_system(phi)

    def convex(self, option, context):
        """The same as a convex load for the certificate, or None."""
        return None  # noqa: RET501
