"""`export=vllm`: one start script per server, and the routing table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from placement.export.servers import Plan, script


@dataclass(frozen=True, slots=True)
class VllmScripts:
    """`<server>.sh` with one `vllm serve` each, and `routes.json`: name -> servers with shares."""

    def files(self, plan: Plan) -> Iterator[tuple[str, str]]:
        for server in plan.servers:
            yield f"{server.name}.sh", script(server, plan)
        routes = {
            name: [{"url": server.url, "weight": share} for server, share in places]
            for name, places in plan.routes().items()
        }
        # Of the GPUs with several servers, the first one.
        servers: dict[str, str] = {}
        for server in plan.servers:
            servers.setdefault(server.gpu_id, server.url)
        content = {"model": plan.model.name, "routes": routes, "servers": servers}
        yield "routes.json", json.dumps(content, indent=1, sort_keys=True) + "\n"
