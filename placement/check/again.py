"""Every GPU of a placement in the twin once more."""

from __future__ import annotations

import yaml

from placement.check.ground import Ground
from placement.check.rules import Placed
from placement.verify.verdict import Verification
from placement.verify.verifier import TwinVerifier
from twin.config.folder import conf_dir
from twin.config.schema import parse
from twin.server.column import Column

#: Verification seeds begin further on than those of any run.
SEED = 90_000


def simulated(ground: Ground, own: Placed, seed: int) -> Verification:
    """Verdicts by the claim `quick`, on seeds of the checker's own."""
    options = yaml.safe_load((conf_dir() / "verify" / "quick.yaml").read_text())
    options = {**options, "seed": SEED + seed}
    options.pop("_target_")
    verifier = parse(TwinVerifier, options, "verify")
    columns = [
        Column(tuple(ground.problem.items[i] for i in group), ground.settings[o])
        for group, o in zip(own.groups, own.options, strict=True)
    ]
    return verifier.columns(columns, ground.run.calibrations, ground.run.constraint, round_=0)
