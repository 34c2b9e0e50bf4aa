"""`export=litellm`: a configuration of the LiteLLM proxy in front of the servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import yaml

from placement.export.servers import Plan
from twin.config.ranges import Range, check_fields


@dataclass(frozen=True, slots=True)
class LiteLlm:
    """`litellm.yaml`: `litellm --config litellm.yaml`.

    Every name has an entry for each server that holds it, weighted by the plan's share. A server that fails is left out
    for `cooldown_s` and the request is tried again. The base model is asked on every server in the background; adapters
    are not, because each probe is a request that has to be generated.

    Args:
        api_key: what the servers were started with (`--api-key`), or `os.environ/NAME`.
        health_check_s: seconds between two probes of a server.
        fallback_to_base: whether the base model answers where every server of an adapter fails.
        retries: times that a failed request is tried again.
    """

    api_key: str = "none"
    health_check_s: Annotated[float, Range(above=0, unit="seconds")] = 60.0
    fallback_to_base: bool = False
    retries: Annotated[int, Range(0, 100)] = 2
    cooldown_s: Annotated[float, Range(above=0, unit="seconds")] = 30.0

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"export.formats.litellm.{name}")

    def files(self, plan: Plan) -> Iterator[tuple[str, str]]:
        yield "litellm.yaml", _HEAD + yaml.safe_dump(self._config(plan), sort_keys=False, allow_unicode=True)

    def _config(self, plan: Plan) -> dict[str, Any]:
        routes = plan.routes()
        # A name of the base model without requests of its own in the plan is answered everywhere.
        for name in plan.base_names:
            routes.setdefault(name, [(server, 1 / len(plan.servers)) for server in plan.servers])
        base = plan.base_names[0]
        entries = [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"hosted_vllm/{name}",
                    "api_base": f"{server.url}/v1",
                    "api_key": self.api_key,
                    "weight": share,
                },
                "model_info": {
                    "id": f"{server.name}/{name}",
                    "disable_background_health_check": name != base,
                },
            }
            for name, places in routes.items()
            for server, share in places
        ]
        adapters = [name for name in routes if name not in plan.base_names]
        router: dict[str, Any] = {
            "routing_strategy": "simple-shuffle",
            "num_retries": self.retries,
            "allowed_fails": 1,
            "cooldown_time": self.cooldown_s,
            # The other names of the base model stand in for each other: the same weights answer.
            "fallbacks": [{name: [other for other in plan.base_names if other != name]} for name in plan.base_names]
            if len(plan.base_names) > 1
            else [],
        }
        if self.fallback_to_base:
            router["fallbacks"] += [{name: [base]} for name in adapters]
        return {
            "model_list": entries,
            "router_settings": router,
            "general_settings": {"background_health_checks": True, "health_check_interval": self.health_check_s},
        }


_HEAD = "# Names, servers and weights of a placement. Start with: litellm --config litellm.yaml\n"
