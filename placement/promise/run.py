"""One promise check: reads the plan, draws its traffic, sends it, judges every GPU, writes `promise.json`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from placement.promise.judge import GpuOutcome, judge
from twin.client.load import Route, offer_load
from twin.command.placement_file import read_placement
from twin.config.components import check_targets
from twin.config.instantiate import build
from twin.config.ranges import Range
from twin.config.schema import top_level
from twin.errors import InputError
from twin.files import write_text
from twin.fleet.node import Server
from twin.sources.components import WORKLOAD
from twin.traffic.arrivals import draw_requests
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests
from twin.workload.workload import Workload

BROKEN = 1


@dataclass(frozen=True, slots=True)
class Options:
    """Keys of `conf/promise.yaml` outside the groups."""

    placement: str
    url: str | None = None
    base_model: str | None = None
    horizon_s: Annotated[float, Range(1, 1_000_000, unit="seconds")] = 600.0
    warmup_s: Annotated[float, Range(0, unit="seconds")] = 10.0
    rate_scale: Annotated[float, Range(above=0)] = 1.0
    seed: Annotated[int, Range(0)] = 0
    allow_modules: tuple[str, ...] = ()
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of all servers in order of time.

    Args:
        adapters: of each server, with their shares.
        server: which one a request goes to, (N,).
        requests: `adapter` counts in the adapters of its server.
    """

    adapters: tuple[tuple[Adapter, ...], ...]
    server: np.ndarray[Any, np.dtype[np.int64]]
    requests: Requests
    routes: tuple[Route, ...]


def run_promise(config: dict[str, Any], directory: Path, *, quiet: bool) -> int:
    """Loads the deployment; returns 0 where the promise is kept, else 1.

    Raises:
        InputError: the plan does not fit the workload, or no server answers.
    """
    options = top_level(Options, config, ("workload",))
    check_targets(config, WORKLOAD, options.allow_modules)
    path = Path(options.placement).expanduser()
    document = _document(path)
    workload: Workload = build(config["workload"], "workload", WORKLOAD, options.allow_modules, seed=options.seed)
    made_with = document["provenance"]["calibration"]
    plan = read_placement(path, workload, gpu_type=made_with["gpu_type"], calibration=made_with["name"])
    urls = urls_of(path, plan.fleet.servers, options.url)
    for url in sorted(set(urls)):
        check_answers(url)
    traffic = traffic_of(
        workload, plan.fleet.servers, urls, options.base_model or made_with["model"], horizon_s=options.horizon_s,
        seed=options.seed, rate_scale=options.rate_scale,
    )  # fmt: skip
    for note in plan.notes:
        print(f"note: {note}")
    print(f"{len(traffic.requests)} requests in {options.horizon_s:g} s to {len(urls)} servers", flush=True)
    answers = offer_load(traffic.requests, traffic.routes, horizon_s=options.horizon_s, seed=options.seed)
    outcomes = [
        judge(document, k, traffic.adapters[k], _of(traffic, answers, k), horizon_s=options.horizon_s,
              warmup_s=options.warmup_s)
        for k in range(len(urls))
    ]  # fmt: skip
    kept = all(o.kept for o in outcomes)
    result = {
        "kept": kept,
        "horizon_s": options.horizon_s,
        "seed": options.seed,
        "gpus": [o.to_dict() for o in outcomes],
    }
    write_text(directory / "promise.json", json.dumps(result, indent=1) + "\n")
    if not quiet:
        print(_table(outcomes))
        print("kept" if kept else "BROKEN", f"; {directory / 'promise.json'}", sep="")
    return 0 if kept else BROKEN


def _document(path: Path) -> Mapping[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        data["provenance"]["calibration"]["model"], data["gpus"][0]["setting"], data["verification"]["rule"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{str(path)!r} is no placement.json with a placement: {error}",
            where="placement",
            remedy="give placement=<placement.json of python -m placement>",
        ) from error
    return data


def urls_of(path: Path, servers: Sequence[Server], url: str | None) -> list[str]:
    """Address of each server, from the template or from the exported routes.

    Raises:
        InputError: there are no routes, they do not fit the plan, or the template has an unknown field.
    """
    if url is not None:
        try:
            return [url.format(gpu_id=s.name, index=i).rstrip("/") for i, s in enumerate(servers)]
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(f"url {url!r} has an unknown field: {error}", remedy="use {gpu_id} and {index}") from error
    table = path.parent / "deploy" / "routes.json"
    try:
        routes = json.loads(table.read_text())["servers"]
        return [str(routes[s.name]) for s in servers]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the servers' addresses are not known: {error}",
            where=str(table),
            remedy="give url='http://{gpu_id}:8000', or place with export=vllm",
        ) from error


def check_answers(url: str) -> None:
    """Raises `InputError` where no server answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10):
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise InputError(
            f"no server answers at {url}: {error}", where="url", remedy="start it, or fix the URL"
        ) from error


def traffic_of(
    workload: Workload, servers: Sequence[Server], urls: Sequence[str], base_model: str, *, horizon_s: float, seed: int,
    rate_scale: float,
) -> Traffic:  # fmt: skip
    """Every server's adapters at their share of the rate, and their requests."""
    known = {a.adapter_id: a for a in workload.adapters}
    groups, parts, where = [], [], []
    for k, server in enumerate(servers):
        mine = tuple(known[a].scaled(share * rate_scale) for a, share in server.shares.items())
        # An adapter on several GPUs has other requests on each.
        drawn = draw_requests(
            mine, horizon_s=horizon_s, seed=seed + 1009 * k, max_model_len=server.setting.max_model_len or 4096
        )
        groups.append(mine)
        parts.append(drawn)
        where.append(np.full(len(drawn), k))
    server_of = np.concatenate(where)
    joined = {
        n: np.concatenate([getattr(p, n) for p in parts])
        for n in ("arrival_s", "adapter", "prompt", "cached", "output")
    }
    order = np.argsort(joined["arrival_s"], kind="stable")
    requests = Requests(**{n: v[order] for n, v in joined.items()})
    server_of = server_of[order]
    routes = tuple(
        Route(urls[k], base_model if groups[k][a].rank == 0 else groups[k][a].adapter_id)
        for k, a in zip(server_of.tolist(), requests.adapter.tolist(), strict=True)
    )
    return Traffic(tuple(groups), server_of, requests, routes)


def _of(traffic: Traffic, answers: Any, k: int) -> tuple[Requests, Any, Any]:
    """A server's requests, with the times they were sent, and its token times."""
    mine = traffic.server == k
    kept = {n: getattr(traffic.requests, n)[mine] for n in ("arrival_s", "adapter", "prompt", "cached", "output")}
    sent = answers.sent_s[mine]
    kept["arrival_s"] = np.where(np.isfinite(sent), sent, kept["arrival_s"])
    return replace(traffic.requests, **kept), answers.first_token_s[mine], answers.finish_s[mine]


def _table(outcomes: Sequence[GpuOutcome]) -> str:
    lines = [f"{'GPU':<10}{'requests':>9}{'':>3}{'tokens/s':>15}{'TTFT ms':>15}{'TPOT ms':>15}{'late %':>15}  promise"]
    lines.append(f"{'':<22}" + f"{'plan / real':>15}" * 4)

    def pair(o: GpuOutcome, name: str, factor: float, digits: int) -> str:
        return f"{factor * o.planned.get(name, float('nan')):.{digits}f} / {factor * o.measured[name]:.{digits}f}"

    for o in outcomes:
        cells = (pair(o, "throughput_tps", 1, 0), pair(o, "ttft_mean_s", 1000, 0), pair(o, "tpot_mean_ms", 1, 1),
                 pair(o, "late_fraction", 100, 2))  # fmt: skip
        lines.append(f"{o.gpu_id:<10}{o.requests:>9}{'':>3}" + "".join(f"{c:>15}" for c in cells)
                     + ("  kept" if o.kept else f"  BROKEN: {'; '.join(o.broken)}")
                     + (f" ({'; '.join(o.undecided)})" if o.undecided else ""))  # fmt: skip
    return "\n".join(lines)
