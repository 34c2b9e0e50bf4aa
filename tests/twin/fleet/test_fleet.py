"""A placement as a whole: routing, deaths, and agreement with the simulation of single servers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.errors import InputError
from twin.fleet.node import Failure, Server
from twin.fleet.result import FleetResult
from twin.fleet.simulate import Fleet, simulate_fleet
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.workload.adapter import Adapter, Lengths

CALIBRATIONS = {LLAMA.stamp.gpu_type: LLAMA}
SETTING = EngineSetting(LLAMA.stamp.gpu_type, 16, 16)
LENGTHS = Lengths(200, 1.0), Lengths(100, 1.0)
ADAPTERS = tuple(Adapter(f"a{i}", 16, 0.3 if i == 0 else 0.05, *LENGTHS) for i in range(8))
BASE = Adapter("base", 0, 2.0, *LENGTHS)


def shared(adapters: tuple[Adapter, ...], servers: int) -> Fleet:
    """Every adapter on every server in equal shares."""
    shares = {a.adapter_id: 1.0 / servers for a in adapters}
    return Fleet(adapters, tuple(Server(f"gpu{i}", SETTING, shares) for i in range(servers)))


def test_a_fleet_of_one_server_is_that_server() -> None:
    served = column(64, (0.4, 0.05), 16)
    fleet = Fleet(served.adapters, (Server("only", served.setting, {a.adapter_id: 1.0 for a in served.adapters}),))
    for router in ("shares", "least_loaded"):
        whole = simulate_fleet(fleet, CALIBRATIONS, router=router, horizon_s=900, seed=3)
        alone = simulate(served, LLAMA, horizon_s=900, seed=3)
        assert whole.row == alone.row and whole.servers[0].row == alone.row
        np.testing.assert_array_equal(whole.late_counts, alone.late_counts)


def test_disjoint_servers_do_what_they_do_alone() -> None:
    halves = ADAPTERS[:4], ADAPTERS[4:]
    fleet = Fleet(
        ADAPTERS, tuple(Server(f"gpu{i}", SETTING, {a.adapter_id: 1.0 for a in h}) for i, h in enumerate(halves))
    )
    whole = simulate_fleet(fleet, CALIBRATIONS, horizon_s=900, seed=5)
    for i, half in enumerate(halves):
        alone = simulate(Column(half, SETTING), LLAMA, horizon_s=900, seed=5)
        assert whole.servers[i].row == alone.row
    assert whole.row["throughput_tps"] == pytest.approx(sum(s.row["throughput_tps"] for s in whole.servers))


def test_shares_are_kept() -> None:
    fleet = Fleet((BASE,), (Server("small", SETTING, {"base": 0.25}), Server("large", SETTING, {"base": 0.75})))
    result = simulate_fleet(fleet, CALIBRATIONS, horizon_s=3600)
    sent = [s.requests for s in result.servers]
    assert sum(sent) == result.arrivals
    assert sent[0] / result.arrivals == pytest.approx(0.25, abs=0.02)


def test_least_loaded_waits_less_than_shares_under_bursts() -> None:
    bursty = (replace(BASE, rate_req_per_s=24.0, arrival_cv=4.0),)
    fleet = shared(bursty, 3)
    ttft = {
        r: simulate_fleet(fleet, CALIBRATIONS, router=r, horizon_s=1800, seed=1) for r in ("shares", "least_loaded")
    }
    for name in ("ttft_p99_s", "itl_p99_ms", "e2e_mean_s"):
        assert ttft["least_loaded"].row[name] < ttft["shares"].row[name], name
    sent = [s.requests for s in ttft["least_loaded"].servers]
    assert max(sent) < 1.1 * min(sent), "equal servers are sent equally much"


def test_a_death_moves_requests_to_the_other_holder() -> None:
    fleet = shared(tuple(replace(a, rate_req_per_s=1.0) for a in ADAPTERS), 2)
    assert len(ADAPTERS) <= SETTING.max_loras
    calm = simulate_fleet(fleet, CALIBRATIONS, horizon_s=1800, seed=2)
    hurt = simulate_fleet(
        fleet, CALIBRATIONS, horizon_s=1800, seed=2, failures=[Failure(0, 600.0, 1200.0, detect_s=5.0)]
    )
    assert hurt.arrivals == calm.arrivals and hurt.unrouted == 0 and hurt.resent > 0
    dead, other = hurt.servers
    assert dead.down_s == 600.0 and dead.lost == hurt.resent
    assert other.requests > calm.servers[1].requests
    assert hurt.row["ttft_p99_s"] > calm.row["ttft_p99_s"], "requests in flight start again"
    assert dead.loads == 0, "it comes back with its adapters in their slots"
    assert hurt.row["served_fraction"] == pytest.approx(calm.row["served_fraction"], abs=0.01)


def test_without_another_holder_requests_wait_for_the_server() -> None:
    fleet = Fleet(ADAPTERS, (Server("only", SETTING, {a.adapter_id: 1.0 for a in ADAPTERS}),))
    back = simulate_fleet(fleet, CALIBRATIONS, horizon_s=1800, failures=[Failure(0, 600.0, 900.0)])
    assert back.unrouted == 0 and back.row["ttft_p99_s"] > 100
    gone = simulate_fleet(fleet, CALIBRATIONS, horizon_s=1800, failures=[Failure(0, 600.0)])
    assert gone.unrouted > 0 and gone.row["served_fraction"] < 0.4
    assert gone.servers[0].down_s == 1200.0


def test_the_same_seed_gives_the_same_fleet_on_any_number_of_threads() -> None:
    fleet = shared(ADAPTERS, 3)
    failures = [Failure(1, 100.0, 200.0)]
    runs = [
        simulate_fleet(fleet, CALIBRATIONS, router="least_loaded", horizon_s=600, failures=failures, threads=t)
        for t in (1, 2)
    ]
    assert repr(runs[0].row) == repr(runs[1].row)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"router": "random"}, "'random'"),
        ({"horizon_s": 0.0}, "0.0"),
        ({"failures": [Failure(7, 1.0)]}, "server 7"),
        ({"failures": [Failure(0, 10.0, 50.0), Failure(0, 20.0)]}, "while it is down"),
        ({"calibrations": {}}, LLAMA.stamp.gpu_type),
    ],
)
def test_bad_input_is_named(change: dict[str, object], said: str) -> None:
    arguments = {"calibrations": CALIBRATIONS, **change}
    with pytest.raises(InputError, match=said) as error:
        simulate_fleet(shared(ADAPTERS, 2), **arguments)  # type: ignore[arg-type]
    assert error.value.remedy


def test_shares_must_add_up_and_failures_be_possible() -> None:
    with pytest.raises(InputError, match=r"0\.5"):
        Fleet((BASE,), (Server("a", SETTING, {"base": 0.5}),))
    with pytest.raises(InputError, match="ghost"):
        Fleet((BASE,), (Server("a", SETTING, {"base": 1.0, "ghost": 1.0}),))
    with pytest.raises(InputError, match="without servers"):
        Fleet((BASE,), ())
    with pytest.raises(InputError, match="not possible"):
        Failure(0, 10.0, 5.0)
    assert Failure(0, 1.0).back_s == math.inf


def two_halves() -> Fleet:
    """A busy adapter on two servers in equal shares."""
    return shared((replace(BASE, rate_req_per_s=4.0),), 2)


@pytest.mark.parametrize("router", ["shares", "least_loaded"])
def test_new_requests_go_to_a_dead_server_until_its_death_is_noticed(router: str) -> None:
    def dies(detect_s: float) -> FleetResult:
        failures = [Failure(0, 600.0, detect_s=detect_s)]
        return simulate_fleet(two_halves(), CALIBRATIONS, router=router, horizon_s=1800, seed=2, failures=failures)

    at_once, late, never = dies(0.0), dies(120.0), dies(5000.0)
    assert at_once.arrivals == late.arrivals == never.arrivals
    assert late.resent > at_once.resent, "those that arrived in between are sent again as well"
    assert late.servers[0].lost == late.resent and at_once.servers[0].lost == at_once.resent
    assert late.late_counts.sum() > at_once.late_counts.sum()
    assert late.row["ttft_mean_s"] > at_once.row["ttft_mean_s"]
    assert late.unrouted == 0
    assert never.resent == 0 and never.row["served_fraction"] < late.row["served_fraction"]
    in_between = 4.0 * 120 / 2
    if router == "shares":
        assert late.resent - at_once.resent == pytest.approx(in_between, rel=0.2)
    else:
        assert late.resent < in_between / 2, "a server that answers nothing looks full"


def test_a_server_that_is_back_before_is_noticed_by_that() -> None:
    failures = [[Failure(0, 600.0, 660.0, detect_s=d)] for d in (60.0, 5000.0)]
    runs = [simulate_fleet(two_halves(), CALIBRATIONS, horizon_s=1800, seed=2, failures=f) for f in failures]
    assert runs[0].row == runs[1].row and runs[0].resent == runs[1].resent > 0
    assert runs[0].servers[0].requests > 1.5 * runs[0].servers[0].lost, "it serves on"


def test_without_another_holder_it_makes_no_difference_when_the_death_is_noticed() -> None:
    fleet = Fleet(ADAPTERS, (Server("only", SETTING, {a.adapter_id: 1.0 for a in ADAPTERS}),))
    rows = [
        simulate_fleet(fleet, CALIBRATIONS, horizon_s=1800, failures=[Failure(0, 600.0, 900.0, detect_s=d)]).row
        for d in (0.0, 120.0, 5000.0)
    ]
    assert rows[0]["served_fraction"] == rows[1]["served_fraction"] == rows[2]["served_fraction"]
