"""One advice from plain configuration to files; free of Hydra."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from placement.batching.config import load_advice
from twin.errors import InputError
from twin.files import write_text


def run_batching(config: dict[str, Any], directory: Path, *, quiet: bool) -> tuple[int, dict[str, Any]]:
    """Computes an advice, prints it, and writes `advice.json` and `advice.png`.

    Args:
        quiet: a job of a sweep: no table.

    Returns:
        Exit code and a summary for the table of a sweep.

    Raises:
        PlacementError: bad input, or infeasible.
    """
    advice = load_advice(config)
    from placement.batching.advice import advise
    from placement.batching.document import document
    from placement.batching.table import print_advice

    result = advise(advice)
    data = document(result)
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / "advice.json"]
    write_text(files[0], json.dumps(data, indent=1) + "\n")
    from placement.batching.plot import advice_png

    missing = ""
    try:
        picture = advice_png(data)
    except InputError as error:
        missing = f"no plot: {error.problem}"
    else:
        files.append(directory / "advice.png")
        files[1].write_bytes(picture)
    if not quiet:
        print_advice(data, files, missing)
    recommended = data["replication"]["recommended"]
    return 0, {
        "b_opt": data["b_opt"]["batch"],
        "gpu_memory_utilization": data["recommended"]["gpu_memory_utilization"],
        "servers": recommended["servers_per_gpu"],
        "throughput_req_per_s": recommended["throughput_req_per_s"],
    }
