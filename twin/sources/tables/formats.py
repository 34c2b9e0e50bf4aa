"""Headers of known formats, and other names of our own columns.

A format is recognised by columns that it always has. Where a file is of none, a column is found by its other names.
Columns of JSON records are paths: `usage.prompt_tokens`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

#: What a request was: columns of a log beside those of `twin.sources.requests`.
STATUS, ERROR, CACHE_HIT, CANCELLED, PHASE = "status", "error", "cache_hit", "cancelled", "phase"
OUTCOMES = (STATUS, ERROR, CACHE_HIT, CANCELLED, PHASE)


@dataclass(frozen=True, slots=True)
class Format:
    """A file that others write.

    Args:
        signature: columns by which it is told, in `plain` spelling.
        columns: our column -> its columns, the first one that is there counts.
        time_unit: of its times, where they are numbers.
        prefixed: its names of models begin with a provider, `hosted_vllm/name`.
    """

    name: str
    signature: frozenset[str]
    columns: Mapping[str, Sequence[str]]
    time_unit: str | None = None
    prefixed: bool = False


def plain(name: str) -> str:
    """A column's name without case, blanks and dashes."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _format(
    name: str, signature: str, time_unit: str | None = None, *, prefixed: bool = False, **columns: str
) -> Format:
    found = {ours: tuple(theirs.split()) for ours, theirs in columns.items()}
    return Format(name, frozenset(signature.split()), found, time_unit, prefixed)


#: Formats of logs of requests; sources: docs/workloads.md.
REQUEST_FORMATS = (
    _format(
        "LiteLLM spend log", "starttime endtime model spend completion_tokens", prefixed=True, timestamp="starttime",
        adapter_id="model", prompt_tokens="prompt_tokens", output_tokens="completion_tokens", status="status",
        cache_hit="cache_hit",
    ),
    _format(
        "Azure LLM inference trace", "timestamp contexttokens generatedtokens", timestamp="timestamp",
        prompt_tokens="contexttokens", output_tokens="generatedtokens",
    ),
    _format(
        "BurstGPT", "timestamp model request_tokens response_tokens", timestamp="timestamp", adapter_id="model",
        prompt_tokens="request_tokens", output_tokens="response_tokens",
    ),
    _format(
        "Mooncake trace", "timestamp input_length output_length hash_ids", "ms", timestamp="timestamp",
        prompt_tokens="input_length", output_tokens="output_length",
    ),
    _format(
        "vLLM bench serve", "input_lens output_lens ttfts", "s", timestamp="start_times", prompt_tokens="input_lens",
        output_tokens="output_lens", error="errors",
    ),
    _format(
        "AIPerf records", "metadata.request_start_ns metrics.output_sequence_length.value", "ns",
        timestamp="metadata.request_start_ns", prompt_tokens="metrics.input_sequence_length.value",
        output_tokens="metrics.output_sequence_length.value", error="error", cancelled="metadata.was_cancelled",
        phase="metadata.benchmark_phase",
    ),
    _format(
        "GuideLLM report", "request_start_time prompt_tokens output_tokens outcome", "s",
        timestamp="request_start_time", prompt_tokens="prompt_tokens", output_tokens="output_tokens",
        cached_tokens="cached_tokens", status="outcome",
    ),
    _format(
        "inference-perf records", "start_time end_time info.input_tokens", "s", timestamp="start_time",
        adapter_id="info.lora_adapter", prompt_tokens="info.input_tokens",
        output_tokens="info.response_metrics.output_tokens info.output_tokens", error="error",
    ),
)  # fmt: skip

#: Our columns of a log -> what else they are called, in order of preference.
REQUEST_NAMES: Mapping[str, Sequence[str]] = {
    "timestamp": (
        "timestamp", "time", "ts", "@timestamp", "datetime", "date", "created", "created_at", "starttime", "start_time",
        "arrival_time", "arrived_at", "arrival_timestamp", "request_time", "request_start_time", "time_s", "arrival_s",
        "response.body.created",
    ),
    "adapter_id": (
        "adapter_id", "adapter", "adapter_name", "lora", "lora_name", "lora_adapter", "lora_id", "model", "model_name",
        "requested_model", "model_id", "response.body.model", "body.model", "request.model",
    ),
    "prompt_tokens": (
        "prompt_tokens", "input_tokens", "usage.prompt_tokens", "usage.input_tokens", "num_prompt_tokens",
        "prompt_len", "prompt_length", "input_length", "input_len", "contexttokens", "request_tokens",
        "num_input_tokens", "n_prompt_tokens", "response.body.usage.prompt_tokens", "response.usage.prompt_tokens",
    ),
    "output_tokens": (
        "output_tokens", "completion_tokens", "usage.completion_tokens", "usage.output_tokens", "generated_tokens",
        "num_output_tokens", "num_generated_tokens", "generation_tokens", "output_length", "output_len",
        "generatedtokens", "response_tokens", "num_completion_tokens", "n_output_tokens",
        "response.body.usage.completion_tokens", "response.usage.completion_tokens",
    ),
    "cached_tokens": (
        "cached_tokens", "usage.prompt_tokens_details.cached_tokens", "num_cached_tokens", "cached_prompt_tokens",
        "response.body.usage.prompt_tokens_details.cached_tokens", "cache_read_input_tokens",
    ),
    STATUS: ("status", "status_code", "http_status", "response_code", "success", "ok", "response.status_code"),
    ERROR: ("error", "exception", "error_message"),
    CACHE_HIT: ("cache_hit",),
    CANCELLED: ("cancelled", "was_cancelled", "aborted"),
}  # fmt: skip


def recognised(header: Collection[str], formats: Sequence[Format]) -> Format | None:
    """The format of a file with these columns, None where it is of none."""
    names = {plain(name) for name in header}
    return next((f for f in formats if f.signature <= names), None)


def located(header: Sequence[str], wanted: Collection[str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Our column -> the column of the file that holds it, for those that are there; a column holds one thing."""
    spelt = {plain(name): name for name in reversed(header)}
    found: dict[str, str] = {}
    for ours in wanted:
        for other in (ours, *names.get(ours, ())):
            theirs = spelt.get(plain(other))
            if theirs is not None and theirs not in found.values():
                found[ours] = theirs
                break
    return found
