"""What a configuration may build of a rule of health (`conf/constraint/`), for every command that has one."""

from __future__ import annotations

from twin.config.components import Components

#: Place -> dotted names. Names, not the classes: `twin.figures.health` comes with the compiled twin.
CONSTRAINT: Components = {
    "constraint": ("twin.figures.health.Published", "twin.figures.health.Stable"),
    "constraint.slo": ("twin.workload.adapter.Slo",),
}
