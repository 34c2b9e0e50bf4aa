"""`export=kubernetes`: a Deployment, Service and ConfigMap for every group of equal GPUs, and routes to them.

GPUs with the same setting and the same adapters are one group, a Deployment with as many replicas. Adapters are loaded
by vLLM itself from its command line, by AIBrix (a ModelAdapter each) or by the production stack (a LoraAdapter each).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import yaml

from placement.export.names import DNS_LABEL, check_names, dns_name
from placement.export.servers import Plan, Server, script
from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.server.settings import EngineSetting

#: Most bytes of a ConfigMap, with room for what is not data.
CONFIG_MAP_BYTES = 1_000_000
GROUP_LABEL = "placement/group"
#: Where the ConfigMap is mounted.
MOUNT = "/etc/placement"
#: Most matches of a rule of an HTTPRoute (Gateway API v1).
MATCHES = 64
#: Header that the gateway's body-based routing sets from a request's `model`.
MODEL_HEADER = "X-Gateway-Model-Name"


@dataclass(frozen=True, slots=True)
class Group:
    """GPUs that hold the same, one replica each."""

    name: str
    servers: tuple[Server, ...]

    @property
    def one(self) -> Server:
        return self.servers[0]


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """`kubernetes/<group>.yaml`, `inference-pools.yaml` with routes, and `adapters.yaml` where a controller loads them.

    Args:
        image: of vLLM.
        namespace: of every object.
        adapters_by: who loads adapters: `vllm` from the start, `aibrix` or `production_stack` while it runs.
        adapter_claim: PersistentVolumeClaim with the adapters, mounted at `adapter_dir`; empty = none.
        node_label: label of the nodes whose value is the GPU type of the plan; empty = any node.
        gateway: Gateway that the routes belong to; empty = no InferencePools and routes.
        picker_port: of the endpoint picker of each pool, a Service `<group>-epp`.
    """

    image: str = "vllm/vllm-openai:v0.8.5"
    namespace: str = "default"
    adapters_by: Literal["vllm", "aibrix", "production_stack"] = "vllm"
    adapter_claim: str = "adapters"
    node_label: str = ""
    gateway: str = "inference-gateway"
    picker_port: Annotated[int, Range(1, 65_535)] = 9002

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"export.formats.kubernetes.{name}")
        for name in ("namespace", "adapter_claim", "gateway"):
            value = getattr(self, name)
            if value and not DNS_LABEL.fullmatch(value):
                raise InputError(
                    f"export.formats.kubernetes.{name} {value!r} is no name in a cluster",
                    remedy="use small letters, digits and dashes, a letter first",
                )

    def check(self, model: str, adapters: Sequence[tuple[str, int]], settings: Sequence[EngineSetting]) -> None:
        """Refuses what a cluster cannot run: shared GPUs, and names that AIBrix cannot give to an adapter."""
        if any(s.servers_per_gpu > 1 for s in settings):
            raise InputError(
                "export=kubernetes with engine.servers_per_gpu above 1: a GPU belongs to one pod",
                where="export, engine.servers_per_gpu",
                remedy="use engine.servers_per_gpu=1, or export=vllm",
            )
        check_names(model, adapters, {})
        if self.adapters_by != "aibrix":
            return
        for adapter_id, rank in adapters:
            if rank and not DNS_LABEL.fullmatch(adapter_id):
                raise InputError(
                    f"AIBrix serves an adapter under the name of its object, which {adapter_id!r} cannot be",
                    where="export.formats.kubernetes.adapters_by",
                    remedy="use small letters, digits and dashes, or adapters_by=vllm",
                )

    def files(self, plan: Plan) -> Iterator[tuple[str, str]]:
        # A pod has its own address and sees its own GPUs.
        groups = groups_of([replace(server, port=plan.port, devices=None) for server in plan.servers])
        for group in groups:
            objects = [self._scripts(group, plan), self._deployment(group, plan), self._service(group)]
            yield f"kubernetes/{group.name}.yaml", _documents(objects)
        if self.gateway:
            pools = [self._pool(group) for group in groups]
            yield "kubernetes/inference-pools.yaml", _documents([*pools, *self._routes(groups, plan)])
        adapters = list(self._adapters(groups, plan))
        if adapters:
            yield "kubernetes/adapters.yaml", _documents(adapters)

    def _meta(self, name: str, group: str = "") -> dict[str, Any]:
        meta: dict[str, Any] = {"name": name, "namespace": self.namespace}
        if group:
            meta["labels"] = self._labels(group)
        return meta

    def _labels(self, group: str) -> dict[str, str]:
        labels = {"app.kubernetes.io/name": "vllm", GROUP_LABEL: group}
        if self.adapters_by == "aibrix":
            labels |= {"model.aibrix.ai/name": group, "adapter.model.aibrix.ai/enabled": "true"}
        if self.adapters_by == "production_stack":
            labels["model"] = group
        return labels

    def _scripts(self, group: Group, plan: Plan) -> dict[str, Any]:
        text = script(group.one, plan, load=self.adapters_by == "vllm")
        names = json.dumps([a.adapter_id for a in group.one.adapters], indent=1, ensure_ascii=False) + "\n"
        if len(text.encode()) + len(names.encode()) > CONFIG_MAP_BYTES:
            raise InputError(
                f"the {len(group.one.loras)} adapters of {group.name} do not fit into a ConfigMap of 1 MiB",
                where="export=kubernetes",
                remedy="use export.formats.kubernetes.adapters_by=production_stack, or a shorter adapter_dir",
            )
        data = {"start.sh": text, "adapters.json": names}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._meta(group.name, group.name), "data": data}

    def _deployment(self, group: Group, plan: Plan) -> dict[str, Any]:
        server = group.one
        units = int(server.setting.get("tensor_parallel_size", 1))
        volumes: list[dict[str, Any]] = [
            {"name": "start", "configMap": {"name": group.name}},
            # Workers of a server that spans GPUs talk through shared memory.
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ]
        mounts: list[dict[str, Any]] = [
            {"name": "start", "mountPath": MOUNT, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]
        if self.adapter_claim:
            volumes.append(
                {"name": "adapters", "persistentVolumeClaim": {"claimName": self.adapter_claim, "readOnly": True}}
            )
            mounts.append({"name": "adapters", "mountPath": plan.adapter_dir, "readOnly": True})
        container: dict[str, Any] = {
            "name": "vllm",
            "image": self.image,
            "command": ["/bin/sh", f"{MOUNT}/start.sh"],
            "env": [
                {
                    "name": "HF_TOKEN",
                    "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}},
                }
            ],
            "ports": [{"name": "http", "containerPort": server.port}],
            "resources": {"limits": {"nvidia.com/gpu": str(units)}, "requests": {"nvidia.com/gpu": str(units)}},
            "volumeMounts": mounts,
            # Half an hour to download and compile; then a minute without an answer is a restart.
            "startupProbe": _probe(server.port, period=10, failures=180),
            "readinessProbe": _probe(server.port, period=5, failures=3),
            "livenessProbe": _probe(server.port, period=20, failures=3),
        }
        if self.adapters_by != "vllm":
            container["env"].append({"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"})
        pod: dict[str, Any] = {"containers": [container], "volumes": volumes}
        if self.node_label:
            pod["nodeSelector"] = {self.node_label: server.gpu_type}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._meta(group.name, group.name),
            "spec": {
                "replicas": len(group.servers),
                "selector": {"matchLabels": {GROUP_LABEL: group.name}},
                "template": {"metadata": {"labels": self._labels(group.name)}, "spec": pod},
            },
        }

    def _service(self, group: Group) -> dict[str, Any]:
        port = {"name": "http", "port": group.one.port, "targetPort": "http", "protocol": "TCP"}
        spec = {"selector": {GROUP_LABEL: group.name}, "ports": [port]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": self._meta(group.name, group.name), "spec": spec}

    def _pool(self, group: Group) -> dict[str, Any]:
        """An InferencePool of llm-d and the Gateway API inference extension."""
        return {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": self._meta(group.name),
            "spec": {
                "selector": {"matchLabels": {GROUP_LABEL: group.name}},
                "targetPorts": [{"number": group.one.port}],
                "endpointPickerRef": {
                    "name": f"{group.name}-epp",
                    "port": {"number": self.picker_port},
                    "failureMode": "FailOpen",
                },
            },
        }

    def _routes(self, groups: Sequence[Group], plan: Plan) -> Iterator[dict[str, Any]]:
        """HTTPRoutes by the model's name, one for every set of groups and weights; at most `MATCHES` names each."""
        together: dict[tuple[tuple[str, int], ...], list[str]] = {}
        for name, shares in shares_of(groups, plan).items():
            together.setdefault(_weights(shares), []).append(name)
        for weights, names in together.items():
            for start in range(0, len(names), MATCHES):
                some = names[start : start + MATCHES]
                backends = [
                    {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": group, "weight": weight}
                    for group, weight in weights
                ]
                matches = [{"headers": [{"type": "Exact", "name": MODEL_HEADER, "value": name}]} for name in some]
                label = dns_name("-".join(group for group, _ in weights) + f"-{dns_name(some[0])}")
                yield {
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "HTTPRoute",
                    "metadata": self._meta(label),
                    "spec": {
                        "parentRefs": [{"name": self.gateway}],
                        "rules": [{"matches": matches, "backendRefs": backends}],
                    },
                }

    def _adapters(self, groups: Sequence[Group], plan: Plan) -> Iterator[dict[str, Any]]:
        """Objects of the controller that loads adapters."""
        holders: dict[str, list[Group]] = {}
        for group in groups:
            for held in group.one.loras:
                holders.setdefault(held.adapter_id, []).append(group)
        for adapter_id, held_by in holders.items():
            path = plan.path(adapter_id)
            if self.adapters_by == "aibrix":
                yield self._model_adapter(adapter_id, path, held_by)
            elif self.adapters_by == "production_stack":
                yield from (self._lora_adapter(adapter_id, path, group) for group in held_by)

    def _model_adapter(self, adapter_id: str, path: str, held_by: Sequence[Group]) -> dict[str, Any]:
        values = [group.name for group in held_by]
        return {
            "apiVersion": "model.aibrix.ai/v1alpha1",
            "kind": "ModelAdapter",
            "metadata": self._meta(adapter_id)
            | {"labels": {"model.aibrix.ai/name": adapter_id, "model.aibrix.ai/port": str(held_by[0].one.port)}},
            "spec": {
                "baseModel": held_by[0].name,
                "podSelector": {
                    "matchLabels": {"adapter.model.aibrix.ai/enabled": "true"},
                    "matchExpressions": [{"key": GROUP_LABEL, "operator": "In", "values": values}],
                },
                "artifactURL": path if "://" in path or path.startswith("/") else f"huggingface://{path}",
            },
        }

    def _lora_adapter(self, adapter_id: str, path: str, group: Group) -> dict[str, Any]:
        return {
            "apiVersion": "production-stack.vllm.ai/v1alpha1",
            "kind": "LoraAdapter",
            "metadata": self._meta(dns_name(f"{group.name}-{dns_name(adapter_id)}")),
            "spec": {
                "baseModel": group.name,
                "adapterSource": {"type": "local", "adapterName": adapter_id, "adapterPath": path},
                "loraAdapterDeploymentConfig": {"algorithm": "default", "replicas": len(group.servers)},
            },
        }


def groups_of(servers: Sequence[Server]) -> tuple[Group, ...]:
    """Servers with the same flags, GPU type and adapters together; a group has the name of its first."""
    found: dict[Any, list[Server]] = {}
    for server in servers:
        held = tuple((a.adapter_id, a.rank, round(a.share, 9)) for a in server.adapters)
        found.setdefault((server.gpu_type, tuple(sorted(server.setting.items())), held), []).append(server)
    return tuple(Group(dns_name(own[0].name), tuple(own)) for own in found.values())


def shares_of(groups: Sequence[Group], plan: Plan) -> dict[str, dict[str, float]]:
    """Name -> group -> share of its requests; a name of the base model without requests may go anywhere."""
    found: dict[str, dict[str, float]] = {}
    for group in groups:
        for held in group.one.adapters:
            found.setdefault(held.adapter_id, {})[group.name] = held.share * len(group.servers)
    total = sum(len(group.servers) for group in groups)
    for name in plan.base_names:
        found.setdefault(name, {group.name: len(group.servers) / total for group in groups})
    return found


def _weights(shares: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    """Shares as whole numbers that add up to about a thousand, none of them 0: a weight of 0 is no traffic at all."""
    return tuple((group, max(1, round(1000 * share))) for group, share in shares.items())


def _probe(port: int, *, period: int, failures: int) -> dict[str, Any]:
    return {"httpGet": {"path": "/health", "port": port}, "periodSeconds": period, "failureThreshold": failures}


def _documents(objects: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True)
