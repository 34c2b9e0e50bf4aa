"""What the probe writes of a step and of a load, with classes that have the shape of vLLM's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from profiling.record import probe
from profiling.record.files import STEP_COLUMNS


def fake_scheduler() -> Any:
    class Scheduler:
        deferred_waiting = frozenset({"w"})

        def __init__(self) -> None:
            def lora(i: int) -> Any:
                return SimpleNamespace(lora_int_id=i)

            # A decode at 12 computed tokens, a prompt of 7 of the same adapter, and a base request.
            self.requests = {
                "d": SimpleNamespace(num_computed_tokens=13, num_prompt_tokens=10, lora_request=lora(1)),
                "p": SimpleNamespace(num_computed_tokens=7, num_prompt_tokens=7, lora_request=lora(1)),
                "b": SimpleNamespace(num_computed_tokens=5, num_prompt_tokens=4, lora_request=None),
            }
            self.left = 3

        def schedule(self) -> Any:
            tokens = {"d": 1, "p": 7, "b": 1}
            return SimpleNamespace(num_scheduled_tokens=tokens, total_num_scheduled_tokens=9, preempted_req_ids=None)

        def update_from_output(self, scheduler_output: Any, output: Any) -> str:
            return "outputs"

        def get_request_counts(self) -> tuple[int, int]:
            return 3, 2

        def get_kv_cache_usage(self) -> float:
            return 0.25

        def get_num_unfinished_requests(self) -> int:
            return self.left

    return Scheduler


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    monkeypatch.setenv(probe.FOLDER, str(tmp_path))

    def read(kind: str) -> list[Any]:
        (path,) = tmp_path.glob(f"{kind}-*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


def test_a_step_is_told_by_the_terms_of_the_law(written: Callable[[str], list[Any]]) -> None:
    kind = fake_scheduler()
    probe._wrap_scheduler(kind)
    scheduler = kind()
    for left in (3, 0):
        scheduler.left = left
        assert scheduler.update_from_output(scheduler.schedule(), None) == "outputs"
    first, second = (dict(zip(STEP_COLUMNS, row, strict=True)) for row in written("steps"))
    assert (first["decodes"], first["prompt"], first["kv_tokens"], first["adapters"]) == (2, 7, 16, 1)
    assert (first["running"], first["waiting"], first["skipped"], first["kv_usage"]) == (3, 2, 1, 0.25)
    # The second step follows at once: its time counts from the end of the first.
    assert (first["busy"], second["busy"]) == (0, 1) and second["start_s"] == first["end_s"] <= second["end_s"]


def test_only_real_loads_are_written(written: Callable[[str], list[Any]]) -> None:
    class Slots:
        def __init__(self) -> None:
            self._active_adapters = {1}
            self._registered_adapters = {2: SimpleNamespace(rank=16)}

        def activate_adapter(self, lora_id: int) -> bool:
            return True

    class Worker:
        def _load_adapter(self, request: Any) -> Any:
            return SimpleNamespace(rank=8)

    probe._wrap_loads(Slots, Worker)
    slots = Slots()
    slots.activate_adapter(1)
    slots.activate_adapter(2)
    Worker()._load_adapter(None)
    assert [row[2:] for row in written("loads")] == [[0, 16], [1, 8]]


def test_without_the_variable_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(probe.FOLDER, raising=False)
    probe.install()


def test_under_another_version_nothing_is_wrapped_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setenv(probe.FOLDER, str(tmp_path))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.40.0"))
    probe.install()
    assert json.loads((tmp_path / "refused.json").read_text()) == {"version": "0.40.0"}
