"""What a placement and its certificate are checked against: workload, model and rules, built without a solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from placement.config import Run, load_run
from placement.problem.build import UNLIMITED
from placement.problem.hashes import calibrations_hash, workload_hash
from placement.problem.objectives import relaxed_terms
from placement.problem.problem import ObjectiveContext, PlacementProblem, pinned_to_one
from placement.problem.promises import keepable
from surrogates.pieces.exact import Level
from surrogates.pieces.fleet import Judge, with_levels
from twin.config.schema import parse
from twin.errors import InputError
from twin.server.settings import EngineSetting

#: Groups of the configuration that the checker has no use for.
UNUSED = ("solver", "verify", "export")


@dataclass(frozen=True)
class Ground:
    """Everything that the checker computes itself.

    Args:
        settings: of the problem's options.
        problem: the workload's items (adapters, or even shares of those that the certificate says are split) under the
            certificate's settings, with the planning model's margin. without: the same without the margin.
        hashes: of workload, calibration and weights as they are here.
        wrong: settings that the run did not have, and a model of another kind than the certificate says.
    """

    run: Run
    settings: tuple[EngineSetting, ...]
    problem: PlacementProblem
    without: PlacementProblem
    hashes: dict[str, str | None]
    wrong: tuple[str, ...]

    def of(self, margin: bool) -> PlacementProblem:
        """The problem that a price list speaks of; terms that are no sums are relaxed."""
        problem = self.problem if margin else self.without
        return replace(problem, terms=relaxed_terms(problem.terms))


def ground_of(certificate: Mapping[str, Any], workload: str = "", allow_modules: Sequence[str] = ()) -> Ground:
    """Builds the ground of a certificate.

    Args:
        workload: CSV file of the adapters; empty = the workload that the certificate's configuration names.
        allow_modules: whose callables the configuration may name. What the certificate itself allows does not count.

    Raises:
        InputError: the configuration cannot be built, or is not there.
    """
    run = _run(certificate["config"], workload, allow_modules)
    said = certificate["model"]
    settings = tuple(parse(EngineSetting, dict(s), "certificate.settings") for s in certificate["settings"])
    wrong = [f"the run's engine settings have no {s.label}" for s in settings if s not in run.settings]
    meta: Mapping[str, Any] = getattr(getattr(run.planning, "residual", None), "meta", {})
    hashes = {
        "workload": workload_hash(run.workload.adapters),
        "calibration": calibrations_hash(run.calibrations),
        "weights of the planning model": meta.get("weights_sha256"),
    }
    problem = _problem(run, certificate, settings)
    if (problem.model is None) != bool(said["linear"]):
        wrong.append("the certificate says that the planning model is linear, and it is not, or the other way round")
    return Ground(run, settings, problem, _without_margin(problem), hashes, tuple(wrong))


def _run(config: Mapping[str, Any], workload: str, allow_modules: Sequence[str]) -> Run:
    given = [g for g in ("workload", "objective", "surrogate", "constraint") if "given" in (config.get(g) or {})]
    if given and not (given == ["workload"] and workload):
        raise InputError(
            f"the run was given its {given[0]} as an object in Python, which no file can name",
            where="certificate.config",
            remedy="give the adapters as a file: workload=adapters.csv" if given == ["workload"] else "use options",
        )
    config = {**config, "today": None, "allow_modules": list(allow_modules)}
    if workload:
        config["workload"] = {"_target_": "twin.sources.adapter_file.read_adapters", "path": workload}
    return load_run(config, dict.fromkeys(UNUSED))


def _problem(run: Run, certificate: Mapping[str, Any], settings: tuple[EngineSetting, ...]) -> PlacementProblem:
    adapters, names = run.workload.adapters, tuple(t.name for t in run.gpu_types)
    shares = np.array([int(certificate["splits"].get(a.adapter_id, 1)) for a in adapters], np.int64)
    if (shares < 1).any():
        raise InputError("an adapter is split into less than one share", where="certificate.splits")
    owner = np.repeat(np.arange(len(adapters)), shares)
    items = tuple(
        a if m == 1 else a.scaled(1 / m) for a, m in zip(adapters, shares.tolist(), strict=True) for _ in range(m)
    )
    kept = keepable(adapters, settings, run.calibrations, run.constraint)
    if kept.settings != settings:
        raise InputError(
            "the certificate has settings under which no adapter can keep its promises", where="certificate.settings"
        )
    where = [[a.pinned_gpu in (None, s.gpu_type) or pinned_to_one(a, names) for s in kept.settings] for a in adapters]
    margin, exact = run.constraint.margin, getattr(run.planning, "columns", None)
    model = None if exact is None else exact(items, kept.settings, margin)
    options = () if model is not None else tuple(run.planning.option(s) for s in kept.settings)
    if margin is not None:
        options = tuple(replace(o, feasible=o.outer.shifted(margin)) for o in options)
    levels = certificate["model"]["levels"]
    if isinstance(model, Judge):
        model = with_levels(model, {n: parse(Level, dict(levels[n]), f"certificate.model.levels.{n}") for n in names})
    fleet = certificate["fleet"]
    return PlacementProblem(
        items=items, item_adapter=owner, item_share=np.repeat(1.0 / shares, shares), phi=run.planning.features(items),
        options=options, allowed=(kept.allowed & np.array(where))[owner],
        option_type=np.array([names.index(s.gpu_type) for s in kept.settings]), gpu_types=names,
        stock=np.array([UNLIMITED if t.count is None else t.count for t in run.gpu_types]), max_gpus=fleet["max_gpus"],
        terms=run.objective.terms,
        context=ObjectiveContext(
            run.workload.total_rate_req_per_s, run.workload.total_output_tokens_per_s,
            {t.name: t.price_per_hour for t in run.gpu_types},
        ),
        model=model, reserve=tuple(certificate["model"]["reserve"]),
    )  # fmt: skip


def _without_margin(problem: PlacementProblem) -> PlacementProblem:
    if problem.model is None:
        return replace(problem, options=tuple(replace(o, feasible=o.outer) for o in problem.options))
    assert isinstance(problem.model, Judge)
    reserve = tuple(min(r, 0.0) for r in problem.reserve)
    return replace(problem, model=problem.model.without_margin(), reserve=reserve)
