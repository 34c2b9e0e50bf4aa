"""Same configuration and seed, same bytes: in any process and thread, and on every processor.

The digests were computed on one machine and hold on all. `scripts/check-processors` runs this file again with NumPy,
glibc and numba restricted to the plainest instructions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.twin.columns import LLAMA
from twin import portable
from twin.figures.series import time_series
from twin.fleet.node import Server
from twin.fleet.simulate import Fleet, simulate_fleet
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.sources.synthetic import discrete_rates, power_law
from twin.sources.traces.cut_lognormal import cut_lognormal, sigma_of_quantiles
from twin.traffic.arrivals import draw_requests
from twin.traffic.drift import Peaks, Reshuffled, Switching, Unpredictable
from twin.traffic.gamma_quantiles import log_gamma_quantiles
from twin.traffic.length_shapes import empirical_lengths
from twin.traffic.streams import normals, set_order
from twin.workload.adapter import Adapter, Lengths
from twin.workload.workload import Workload

H100 = "h100-64gb"


def digest(value: Any) -> str:
    """Of everything that a value holds; floats by their bits."""
    sha = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, np.ndarray):
            sha.update(part.dtype.str.encode() + np.ascontiguousarray(part).tobytes())
        elif isinstance(part, dict):
            add([*part.items()])
        elif isinstance(part, (list, tuple)):
            for item in part:
                add(item)
        elif hasattr(part, "__dataclass_fields__"):
            # Where an adapter's weights lie changes no figure.
            add([getattr(part, f.name) for f in fields(part) if f.name != "path"])
        else:
            sha.update(repr(part.item() if isinstance(part, np.generic) else part).encode() + b";")

    add(value)
    return sha.hexdigest()[:16]


def skewed(**options: Any) -> Workload:
    return power_law(
        120, 20.0, 1.1, [8, 16, 32], [0.5, 0.3, 0.2], [2.0, 5.0], 0.3, length_scale_cv=0.4, base_model_share=0.1,
        cached_prompt_fraction=0.2, **options,
    )  # fmt: skip


RECORDED = empirical_lengths([1.0, 3.0, 20.0, 55.5, 90.0, 400.0, 401.0, 1300.0])
ODD = (
    Adapter("few", 8, 5.0, Lengths(10, 0), Lengths(10.5, 0), arrival_cv=0.3),
    Adapter("wild", 16, 0.2, Lengths(1, 0), Lengths(900, 1.0), 8.0, cached_prompt_fraction=0.5, length_correlation=0.5),
    Adapter("recorded", 16, 2.0, RECORDED, RECORDED, 2.0, length_correlation=-0.4),
    Adapter("long tail", 0, 1.0, Lengths(100, 3.0, "lognormal"), Lengths(80, 20.0), 1.0, length_correlation=-0.01),
)
EVERYWHERE = 40.0 * np.random.default_rng(0).random(200_000) - 20.0
WORKLOADS: dict[str, Callable[[], Any]] = {
    "power law": skewed,
    "published": lambda: discrete_rates(96, [0.4, 0.1, 0.025], [8, 16], seed=3, length_shape="published"),
    "unpredictable": lambda: skewed(drift=Unpredictable(persistence=0.6, common_share=0.3), plan_rate=0.9),
    "reshuffled": lambda: skewed(drift=Reshuffled(), length_shape="lognormal"),
    "switching": lambda: skewed(drift=Switching()),
    "peaks": lambda: skewed(drift=Peaks(groups=2), length_shape="constant"),
    "odd": lambda: ODD,
    "lengths by quantiles": lambda: cut_lognormal(
        np.array([50.0, 700.0, 3000.0]),
        sigma_of_quantiles(np.array([20.0, 700.0, 900.0]), np.array([90.0, 900.0, 9000.0])), 1024.0,
    ),
}  # fmt: skip


def adapters_of(name: str) -> tuple[Adapter, ...]:
    made = WORKLOADS[name]()
    return made.adapters if isinstance(made, Workload) else tuple(made)


def simulated(name: str) -> Any:
    """Overloaded, with few slots and a small KV cache: preemptions, skips, loads and evictions happen."""
    result = result_of(name)
    # The adapters are an input, and their sums have a digest of their own.
    figures = [getattr(result, f.name) for f in fields(result) if f.name not in ("adapters", "adapter_sums")]
    return [figures, time_series(result.trace, horizon_s=900.0, total_blocks=1000, bins=20)]


def result_of(name: str) -> Any:
    setting = EngineSetting(H100, 8, 32, max_cpu_loras=40, gpu_memory_utilization=0.36, max_model_len=2048)
    column = Column(adapters_of(name), setting)
    return simulate(column, LLAMA, horizon_s=900.0, seed=2, trace_steps=2000, events=10**7)


def fleet() -> Any:
    shares = [{a.adapter_id: 0.5 for a in ODD}, {a.adapter_id: 0.5 for a in ODD}]
    servers = tuple(Server(f"gpu{i}", EngineSetting(H100, 8, 16), s) for i, s in enumerate(shares))
    result = simulate_fleet(Fleet(ODD, servers), {H100: LLAMA}, horizon_s=600.0, seed=4)
    return [result.row, [s.row for s in result.servers]]


VALUES: dict[str, Callable[[], Any]] = {
    **{f"workload {name}": made for name, made in WORKLOADS.items()},
    **{
        f"requests {name}": partial(draw_requests, adapters_of(name), horizon_s=1800.0, seed=11, max_model_len=2048)
        for name in WORKLOADS
        if name != "lengths by quantiles"
    },
    # As many draws as it takes for the last bits of a library's functions to show in whole numbers.
    "many adapters": lambda: power_law(20_000, 300.0, 1.3, [8, 16], arrival_cv=[1.0, 5.0], length_scale_cv=0.7),
    "many requests": partial(
        draw_requests,
        power_law(300, 60.0, 1.0, [8], arrival_cv=[1.0, 5.0], length_scale_cv=0.3).adapters,
        horizon_s=7200.0,
        seed=3,
        max_model_len=8192,
    ),
    "functions": lambda: [
        [portable.exps(EVERYWHERE), portable.logs(abs(EVERYWHERE)), portable.powers(abs(EVERYWHERE), -1.3)],
        [portable.normal_cdf(EVERYWHERE), normals(np.random.default_rng(1), (100_000,))],
        [log_gamma_quantiles(shape, np.linspace(-5.0, 5.0, 401)) for shape in (1e-3, 0.19, 1.0, 3.7, 1e4)],
    ],
    **{f"simulation {name}": partial(simulated, name) for name in ("power law", "unpredictable", "odd")},
    "adapter sums": lambda: result_of("power law").adapter_sums,
    "fleet": fleet,
}
DIGESTS: dict[str, str] = {
    "workload power law": "44b3418f43224728",
    "workload published": "f41a1859cbe1b817",
    "workload unpredictable": "a39275bd3ffd5b0d",
    "workload reshuffled": "83783a2651499a07",
    "workload switching": "0fee8c8cae66c34c",
    "workload peaks": "b2a85cdff99ec256",
    "workload odd": "3b47e42d2ba0754b",
    "workload lengths by quantiles": "2158a2cf33f0e54f",
    "requests power law": "12bc5374602e6264",
    "requests published": "78e74bdb628359f8",
    "requests unpredictable": "785e078526ed1c88",
    "requests reshuffled": "94b1efe115760c41",
    "requests switching": "cd46327029ae3518",
    "requests peaks": "953b72fd3335a13e",
    "requests odd": "dd916d3f896d67f0",
    "many adapters": "a404888c77404317",
    "many requests": "d8e16d902640d9dd",
    "functions": "3b2f6abe53167e9a",
    "simulation power law": "7711083d7b113b0e",
    "simulation unpredictable": "7bace8f2a8e278eb",
    "simulation odd": "95ec22f60d37e7e3",
    "adapter sums": "e4a0118226a78401",
    "fleet": "4b4de7c8e1469cb0",
}


@pytest.mark.parametrize("name", VALUES)
def test_bytes_are_the_same_on_every_machine(name: str) -> None:
    assert digest(VALUES[name]()) == DIGESTS[name]


def test_the_digests_cover_what_the_twin_does() -> None:
    result = result_of("power law")
    kinds = {int(k) for k in result.events[:, 1]}
    assert kinds == set(range(6)), "scheduled, skipped, preempted, finished, loaded, evicted"
    assert result.disk_loads > 0


def test_who_else_is_there_does_not_change_a_set_order() -> None:
    ids = [f"a{i}" for i in range(40)]
    whole = [ids[i] for i in set_order(ids, 3)]
    assert whole != ids
    some = ids[::3]
    assert [some[i] for i in set_order(some, 3)] == [i for i in whole if i in some]


if __name__ == "__main__":
    for name, value in VALUES.items():
        print(f'    "{name}": "{digest(value())}",')
