"""Exported servers on one machine have ports of their own, and the promise check finds them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from placement.export import DeploymentFiles
from placement.promise.run import urls_of
from twin.server.groups import ModelConfig

GPU: dict[str, Any] = {"gpu_type": "cpu", "setting": {"max_loras": 4}, "adapters": []}


def test_ports_flags_and_addresses(tmp_path: Path) -> None:
    document = {"gpus": [{**GPU, "gpu_id": "gpu000"}, {**GPU, "gpu_id": "gpu001"}]}
    export = DeploymentFiles(
        ModelConfig("tiny", "/m"), url="http://127.0.0.1:{port}", port=8100, servers_per_host=64,
        flags="--dtype bfloat16 --override '{\"a\": 1}'",
    )  # fmt: skip
    export.write(document, tmp_path)
    second = (tmp_path / "deploy" / "gpu001.sh").read_text()
    assert "--port 8101" in second and "--dtype bfloat16 --override '{\"a\": 1}'\n" in second
    servers: Any = [SimpleNamespace(name="gpu000"), SimpleNamespace(name="gpu001")]
    found = urls_of(tmp_path / "placement.json", servers, None)
    assert found == ["http://127.0.0.1:8100", "http://127.0.0.1:8101"]
    assert urls_of(tmp_path, servers, "http://{gpu_id}:9/") == [f"http://{s.name}:9" for s in servers]
    assert json.loads((tmp_path / "deploy" / "routes.json").read_text())["model"] == "tiny"
