"""Rates and lengths per model from a Prometheus server: counters of vLLM, LiteLLM or the gateway API.

    sum by (requested_model) (increase(litellm_proxy_total_requests_metric_total[86400s]))

`increase` corrects restarts of what is scraped. Lengths are sums of tokens over requests; their spread is not recorded.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from twin.config.arguments import number
from twin.errors import InputError
from twin.sources.access_log import COLD, cold_rate
from twin.sources.registry import read_registry
from twin.wording import counted
from twin.workload.adapter import PUBLISHED_OUTPUT_CV, PUBLISHED_PROMPT_CV, Adapter, Lengths
from twin.workload.reading import Reading
from twin.workload.workload import ReadWorkload, Workload

#: Seconds that the server may take for a query.
TIMEOUT_S = 60.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


@dataclass(frozen=True, slots=True)
class Counters:
    """What one kind of exporter counts, by model.

    Args:
        labels: of the model's name, the first one that is not empty counts.
        requests, failed, prompt_tokens, output_tokens, cached_tokens: metrics; failed ones are part of the requests.
        note: what its names mean.
    """

    name: str
    labels: tuple[str, ...]
    requests: str
    prompt_tokens: str
    output_tokens: str
    failed: str = ""
    cached_tokens: str = ""
    note: str = ""


#: In order of preference: a gateway knows adapters, a server only itself.
COUNTERS = {
    "gateway": Counters(
        "the gateway's endpoint picker", ("target_model_name", "model_name"), "inference_objective_request_total",
        "inference_objective_input_tokens_sum", "inference_objective_output_tokens_sum",
        "inference_objective_request_error_total",
    ),
    "gateway_v0": Counters(
        "the gateway's endpoint picker", ("target_model_name", "model_name"), "inference_model_request_total",
        "inference_model_input_tokens_sum", "inference_model_output_tokens_sum", "inference_model_request_error_total",
    ),
    "litellm": Counters(
        "LiteLLM", ("requested_model",), "litellm_proxy_total_requests_metric_total",
        "litellm_input_tokens_metric_total", "litellm_output_tokens_metric_total",
        "litellm_proxy_failed_requests_metric_total",
    ),
    "vllm": Counters(
        "vLLM", ("model_name",), "vllm:request_success_total", "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total", "", "vllm:prefix_cache_hits_total",
        "vLLM counts by server and not by adapter: each name stands for all requests to its server.",
    ),
}  # fmt: skip


def read_prometheus(
    url: str,
    registry: Any,
    window: str | float = "1d",
    end: str | float | None = None,
    counters: str = "auto",
    match: str = "",
    quantile: float | None = None,
    step: str | float = "10m",
    cold: str = "deploy",
    token_variable: str | None = None,
    base: str | None = None,
    base_names: Sequence[str] = (),
) -> Workload:
    """A workload of the rates in one window.

    Args:
        url: of the server, e.g. `http://localhost:9090`.
        registry: ranks: a table `adapter_id,rank`, or folders of PEFT adapters.
        window: how long, `90m`, `7d`, or seconds.
        end: until when, ISO 8601 or seconds since 1970; None = now.
        counters: `gateway`, `gateway_v0`, `litellm` or `vllm`; `auto` = the first of these that the server has.
        match: labels that the counters must have, e.g. `namespace="chat"`.
        quantile: plan for this quantile of each model's rate over steps of the window, at least its mean; None = mean.
        step: length of such a step.
        cold: `deploy` or `leave_out` registered adapters without requests.
        token_variable: environment variable that holds a bearer token.
        base, base_names: as in `twin.sources.access_log.read_access_log`.

    Raises:
        InputError: the server does not answer, has no such counters, or names a model that is not registered.
    """
    if cold not in COLD:
        raise InputError(
            f"{cold!r} is nothing to do with cold adapters",
            where="option workload.cold",
            remedy="use deploy or leave_out",
        )
    chosen = None if quantile is None else number(quantile, "workload.quantile", above=0.0, high=1.0)
    known = read_registry(registry, base=base, base_names=base_names)
    server = Server(url, token_variable, _instant(end))
    span_s = _seconds(window, "workload.window")
    kind = server.kind(counters)
    selector = f"{{{match.strip('{} ')}}}" if match.strip("{} ") else ""

    def increase(metric: str) -> dict[str, float]:
        if not metric:
            return {}
        by = ", ".join(kind.labels)
        return server.by_model(f"sum by ({by}) (increase({metric}{selector}[{span_s:.0f}s]))", kind.labels)

    total, failed = increase(kind.requests), increase(kind.failed)
    served = {name: max(0.0, count - failed.get(name, 0.0)) for name, count in total.items()}
    prompts, outputs, cached = (increase(m) for m in (kind.prompt_tokens, kind.output_tokens, kind.cached_tokens))
    active = {name: count for name, count in served.items() if count > 0 and outputs.get(name, 0.0) > 0}
    _check(active, known.ids, known.title, server, span_s)
    rates = {name: count / span_s for name, count in active.items()}
    notes = [*known.notes, *([kind.note] if kind.note else [])]
    if chosen is not None:
        high = server.by_model(_peaks(kind, selector, chosen, span_s, _seconds(step, "workload.step")), kind.labels)
        mean = math.fsum(rates.values())
        rates = {name: max(rate, high.get(name, 0.0)) for name, rate in rates.items()}
        notes.append(
            f"Rates are the {chosen:g} quantile over steps of {step}, model by model: {math.fsum(rates.values()):.4g} "
            f"req/s in total, against {mean:.4g} on average."
        )
    notes.append(
        f"Counters tell no spread: lengths have the published CVs ({PUBLISHED_PROMPT_CV:g} and {PUBLISHED_OUTPUT_CV:g})"
        ", arrivals are Poisson."
    )
    counts = np.array([round(active.get(name, 0.0)) for name in known.ids])
    silent = tuple(n for n, c, r in zip(known.ids, counts, known.ranks, strict=True) if n not in active and r > 0)
    idle = cold_rate(counts, len(silent), span_s) if silent else 0.0
    all_lengths = [math.fsum(t.get(n, 0.0) for n in active) / math.fsum(active.values()) for t in (prompts, outputs)]
    adapters = []
    for row, name in enumerate(known.ids):
        if name not in active and not (name in silent and cold == "deploy"):
            continue
        count = active.get(name, 0.0)
        means = [t.get(name, 0.0) / count for t in (prompts, outputs)] if count else all_lengths
        hits = min(0.99, cached.get(name, 0.0) / prompts[name]) if count and prompts.get(name) else 0.0
        adapters.append(
            Adapter(
                name, known.ranks[row], rates.get(name, idle), Lengths(max(1.0, means[0]), PUBLISHED_PROMPT_CV),
                Lengths(max(1.0, means[1]), PUBLISHED_OUTPUT_CV), cached_prompt_fraction=hits, slo=known.slos[row],
                pinned_gpu=known.pins[row] or None,
            )
        )  # fmt: skip
    lost = math.fsum(total.values()) - math.fsum(active.values())
    reading = Reading(
        source=server.url, format=f"counters of {kind.name}", requests_read=round(math.fsum(total.values())),
        left_out={"failed": round(lost)} if round(lost) else {}, span_s=span_s, cold_adapters=silent,
        cold=f"deployed all the same, as cold ones of {idle:.3g} req/s" if cold == "deploy" else "left out, as told",
        notes=(f"Until {datetime.fromtimestamp(server.at_s, UTC):%Y-%m-%dT%H:%M:%SZ}.",),
    )  # fmt: skip
    notes.insert(0, f"{counted(len(adapters), 'adapter')}, rates from {server.url}.")
    return ReadWorkload(tuple(adapters), "prometheus", tuple(notes), reading=reading)


def _peaks(kind: Counters, selector: str, quantile: float, span_s: float, step_s: float) -> str:
    by = ", ".join(kind.labels)
    rate = f"sum by ({by}) (rate({kind.requests}{selector}[{step_s:.0f}s]))"
    if kind.failed:
        rate = f"({rate} - (sum by ({by}) (rate({kind.failed}{selector}[{step_s:.0f}s])) or 0 * {rate}))"
    return f"quantile_over_time({quantile!r}, {rate}[{span_s:.0f}s:{step_s:.0f}s])"


def _check(active: Mapping[str, float], ids: Sequence[str], title: str, server: Server, span_s: float) -> None:
    if not active:
        raise InputError(
            f"no model had requests in the {span_s:.0f} s until {server.at_s:.0f}",
            where=server.url,
            remedy="choose workload.window and workload.end, or workload.match",
        )
    missing = [name for name in active if name not in ids]
    if missing:
        others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise InputError(
            f"model {missing[0]!r}{others} is not in the registry",
            where=server.url,
            remedy=f"add it with its rank to {title} (rank 0 = the base model; 'workload.base_names=[{missing[0]}]' "
            "says so too), or leave it out with workload.match",
        )


@dataclass(slots=True)
class Server:
    """A Prometheus server, asked for one instant.

    Args:
        token_variable: environment variable that holds a bearer token.
        at_s: seconds since 1970.
    """

    url: str
    token_variable: str | None
    at_s: float

    def __post_init__(self) -> None:
        self.url = str(self.url or "").rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"{self.url!r} is no address of a Prometheus server",
                where="option workload.url",
                remedy="give e.g. workload.url=http://localhost:9090",
            )

    def kind(self, counters: str) -> Counters:
        """The counters to read."""
        if counters != "auto":
            if counters not in COUNTERS:
                raise InputError(
                    f"{counters!r} are no counters that are known",
                    where="option workload.counters",
                    remedy=f"use auto or one of {', '.join(COUNTERS)}",
                )
            return COUNTERS[counters]
        names = "|".join(kind.requests for kind in COUNTERS.values())
        found = {row["metric"].get("__name__") for row in self._ask(f'count by (__name__) ({{__name__=~"{names}"}})')}
        kind = next((kind for kind in COUNTERS.values() if kind.requests in found), None)
        if kind is None:
            raise InputError(
                f"the server has none of the counters {names.replace('|', ', ')} at {self.at_s:.0f}",
                where=self.url,
                remedy="scrape one of these exporters, or name the time with workload.end",
            )
        return kind

    def by_model(self, query: str, labels: Sequence[str]) -> dict[str, float]:
        """Model -> value."""
        found: dict[str, float] = {}
        for row in self._ask(query):
            name = next((row["metric"][label] for label in labels if row["metric"].get(label)), "")
            value = float(row["value"][1])
            if name and math.isfinite(value):
                found[name] = found.get(name, 0.0) + value
        return found

    def _ask(self, query: str) -> list[Any]:
        parameters = urllib.parse.urlencode({"query": query, "time": f"{self.at_s:.3f}"})
        request = urllib.request.Request(f"{self.url}/api/v1/query?{parameters}")
        if self.token_variable:
            token = os.environ.get(self.token_variable, "")
            if not token:
                raise InputError(
                    f"environment variable {self.token_variable!r} is empty",
                    where="option workload.token_variable",
                    remedy="export the token, or leave the option out",
                )
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                document = json.load(answer)
            if document["status"] != "success" or document["data"]["resultType"] != "vector":
                raise ValueError(str(document)[:200])
            rows: list[Any] = document["data"]["result"]
        except urllib.error.HTTPError as error:
            text = error.read(2000).decode(errors="replace")
            raise InputError(
                f"the Prometheus server refuses the query with {error.code}: {text.strip()[:300]}",
                where=f"{self.url}, {query}",
                remedy="check workload.match and, for 401 and 403, workload.token_variable",
            ) from error
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            raise InputError(
                f"the Prometheus server does not answer as one: {error}",
                where=self.url,
                remedy="check workload.url; it must serve /api/v1/query",
            ) from error
        return rows


def _seconds(value: str | float, option: str) -> float:
    match = _DURATION.fullmatch(str(value).strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds < 1:
        raise InputError(
            f"{value!r} is no time of a second or more", where=f"option {option}", remedy="write e.g. 90m, 1d or 3600"
        )
    return seconds


def _instant(end: str | float | None) -> float:
    if end is None:
        return datetime.now(UTC).timestamp()
    try:
        return float(end)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(str(end))
    except ValueError as error:
        raise InputError(
            f"{end!r} is no time",
            where="option workload.end",
            remedy="write e.g. 2026-11-23T18:00:00Z, or seconds since 1970",
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
