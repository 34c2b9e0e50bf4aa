"""What a configuration may build of a workload (`conf/workload/`), for every command that has one."""

from __future__ import annotations

from twin.config.components import Components

_LENGTHS = ("twin.workload.adapter.Lengths",)

#: Place -> dotted names. Names, not the callables: a command imports only what its configuration chooses.
WORKLOAD: Components = {
    "workload": (
        "twin.sources.access_log.read_access_log",
        "twin.sources.adapter_file.read_adapters",
        "twin.sources.prometheus.read_prometheus",
        "twin.sources.synthetic.discrete_rates",
        "twin.sources.synthetic.power_law",
        "twin.sources.traces.azure.read_azure",
        "twin.sources.traces.mooncake.read_mooncake",
        "twin.sources.traces.servegen.read_servegen",
        "twin.sources.traces.trace.read_trace",
        "twin.workload.workload.Workload",
    ),
    "workload.drift": (
        "twin.traffic.drift.Peaks",
        "twin.traffic.drift.Reshuffled",
        "twin.traffic.drift.Switching",
        "twin.traffic.drift.Unpredictable",
    ),
    # Adapters written out one by one.
    "workload.adapters.*": ("twin.workload.adapter.Adapter",),
    "workload.adapters.*.prompt_tokens": _LENGTHS,
    "workload.adapters.*.output_tokens": _LENGTHS,
    "workload.adapters.*.slo": ("twin.workload.adapter.Slo",),
    "workload.adapters.*.rate_process": ("twin.workload.rates.OnOff", "twin.workload.rates.RateProfile"),
}
