"""The picture of an advice: throughput and latency over the batch limit, where the step goes, replicas."""

from __future__ import annotations

from typing import Any

from twin.pictures import blank, png

BLUE, ORANGE, GREEN, GREY, RED = "#3366aa", "#dd7722", "#338855", "#999999", "#bb3333"


def advice_png(data: dict[str, Any]) -> bytes:
    """Three panels, PNG."""
    figure = blank(15, 4.6, option="advice.png")
    left, middle, right = figure.subplots(1, 3)
    _curve(left, data)
    _latency(middle, data)
    _replicas(right, data)
    best = data["b_opt"]["batch"]
    figure.suptitle(
        f"{data['model']} on {data['hardware']}: B_opt = {best} "
        f"(rule {data['rule']}, SLO {data['slo']['ms']:.1f} ms, {data['curve']['source']} curve)"
    )
    return png(figure)


def _points(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [p for p in data["curve"]["points"] if not p["preempting"]]


def _curve(axes: Any, data: dict[str, Any]) -> None:
    points, best = _points(data), data["b_opt"]
    batches = [p["batch"] for p in points]
    throughput = [p["throughput_req_per_s"] for p in points]
    axes.plot(batches, throughput, "o-", color=BLUE, ms=4, label="throughput T(B)")
    plateau = max(throughput)
    axes.axhline(plateau, color=BLUE, lw=1, ls=":", label=f"plateau, {plateau:.1f} requests/s")
    axes.axvline(best["batch"], color=GREEN, lw=1.5, ls="--", label=f"B_opt = {best['batch']}")
    axes.set(xlabel="max_num_seqs", ylabel="requests/s", title="Throughput and efficiency", ylim=(0, 1.12 * plateau))
    _batch_axis(axes, batches)
    other = axes.twinx()
    efficiency = [p["efficiency"] for p in points]
    if all(e is not None for e in efficiency):
        other.plot(batches, efficiency, "s-", color=ORANGE, ms=3, label="efficiency T(B) / (B T(1))")
        if data["epsilon"] is not None:
            other.axhline(data["epsilon"], color=ORANGE, lw=1, ls=":", label=f"epsilon = {data['epsilon']:g}")
        other.set(ylabel="efficiency", ylim=(0, 1.12))
    else:
        other.set_yticks([])
    _legend(axes, other, "center left")


def _latency(axes: Any, data: dict[str, Any]) -> None:
    points, best = _points(data), data["b_opt"]
    key = "itl_ms" if data["rule"] == "efficiency" else "tpot_ms"
    batches, latency = [p["batch"] for p in points], [p[key] for p in points]
    axes.plot(batches, latency, "o-", color=BLUE, ms=4, label="ITL L(B)" if key == "itl_ms" else "TPOT L(B)")
    axes.axhline(data["slo"]["ms"], color=RED, lw=1.2, label=f"SLO {data['slo']['ms']:.1f} ms")
    axes.axvline(best["batch"], color=GREEN, lw=1.5, ls="--", label=f"B_opt = {best['batch']}")
    axes.set(xlabel="max_num_seqs", ylabel="ms", title="Latency and KV memory", ylim=(0, None))
    _batch_axis(axes, batches)
    other = axes.twinx()
    capacity = data["memory"]["capacity_tokens"]
    kv = [None if p["kv_peak_tokens"] is None else 100 * p["kv_peak_tokens"] / capacity for p in points]
    if all(v is not None for v in kv):
        other.plot(batches, kv, "s-", color=GREY, ms=3, label="KV peak")
        other.set(ylabel="KV peak, % of the cache at B_opt", ylim=(0, 110))
    _legend(axes, other, "upper left")


def _replicas(axes: Any, data: dict[str, Any]) -> None:
    """Throughput against latency of every combination that fits; a line a number of servers."""
    grid = [r for r in data["replication"]["grid"] if not r["problem"]]
    colours = (BLUE, ORANGE, GREEN, "#8855aa", RED, GREY)
    for servers in sorted({r["servers_per_gpu"] for r in grid}):
        rows = [r for r in grid if r["servers_per_gpu"] == servers]
        axes.plot(
            [r["itl_ms"] for r in rows], [r["throughput_req_per_s"] for r in rows], "o-", ms=4,
            color=colours[(servers - 1) % len(colours)], label=f"{servers} server{'s' if servers > 1 else ''}",
        )  # fmt: skip
    chosen, best = data["replication"]["recommended"], data["replication"]["best"]
    axes.plot(chosen["itl_ms"], chosen["throughput_req_per_s"], "*", ms=15, color=RED, mec="white",
              label=f"at B_opt: {chosen['max_num_seqs']} x {chosen['servers_per_gpu']}")  # fmt: skip
    if best is not None:
        axes.plot(best["itl_ms"], best["throughput_req_per_s"], "D", ms=9, mfc="none", mec="black",
                  label=f"best in SLO: {best['max_num_seqs']} x {best['servers_per_gpu']}")  # fmt: skip
    axes.axvline(data["slo"]["ms"], color=RED, lw=1.2, ls=":", label=f"SLO {data['slo']['ms']:.1f} ms")
    axes.set(xlabel="mean ITL, ms", ylabel="requests/s of the GPU", title="Replicas", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")


def _batch_axis(axes: Any, batches: list[int]) -> None:
    axes.set_xscale("log", base=2)
    ticks = [b for b in batches if b & (b - 1) == 0] or batches
    axes.set_xticks(ticks, [str(b) for b in ticks])
    axes.grid(alpha=0.25)


def _legend(axes: Any, other: Any, where: str) -> None:
    handles = [h for a in (axes, other) for h in a.get_legend_handles_labels()[0]]
    labels = [text for a in (axes, other) for text in a.get_legend_handles_labels()[1]]
    axes.legend(handles, labels, fontsize=8, loc=where)
