"""`python -m surrogates tree`: the planning model's answers to the single-GPU task, as rules that fit on a page.

The publication of the task (arXiv 2508.08343) predicts how many adapters to serve and how many slots to give them by
small decision trees, because an operator can read them. Here one tree of at most `depth` questions is distilled from
the surrogate: random workloads are drawn (rates, ranks, lengths), `surrogates.optimum` finds adapters and slots with
the largest throughput of each, and a regression tree (scikit-learn) fits the logarithms of both together. A leaf tells
the medians of its workloads and the ranges that hold eight tenths of them.

Held-out workloads say how good the rules are: how far numbers are from the surrogate's, whether what a leaf says is
healthy (by the surrogate, and for some by the twin), and what part of the most adapters it serves. A leaf's median is
too many for half of its workloads; the low end of its range is the careful choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from surrogates.optimum import OptimumCommand, Source, best_points, column_of, judge_of, optimum
from twin.config.ranges import Range
from twin.errors import InfeasibleError, InputError
from twin.server.calibration import Calibration, load_calibration

Array = NDArray[np.float64]
#: What a workload is known by: names in questions, in the order of `features`, and how to write a threshold.
FEATURES = (
    ("tokens/s of an adapter", "{:.3g}"),
    ("output tokens/s of an adapter", "{:.3g}"),
    ("requests/s of an adapter", "{:.3g}"),
    ("busiest adapter / mean", "{:.2f}"),
    ("prompt tokens of a request", "{:.0f}"),
    ("output tokens of a request", "{:.0f}"),
    ("largest rank", "{:.0f}"),
)
SLOTS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192)
ADAPTERS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
#: Rates are drawn log-uniformly from here, requests per second, lengths from there, tokens.
RATES, PROMPTS, OUTPUTS = (0.005, 1.0), (60.0, 900.0), (60.0, 500.0)
RANKS = ((8,), (16,), (32,), (8, 16), (8, 16, 32))
#: Least share of the workloads in a leaf, and the part of a leaf's workloads that its ranges hold.
LEAST_LEAF, LOW, HIGH = 0.015, 0.1, 0.9


@dataclass(frozen=True, slots=True)
class TreeCommand:
    """`key=value` arguments.

    Args:
        source: whose answers are distilled, `neural` or `physics`.
        workloads: to learn from. held_out: to score on. in_twin: of these, whose leaf is played by the twin as well.
        depth: questions at most.
    """

    calibration: str = "llama-3.1-8b-h100-64gb"
    source: str = "neural"
    workloads: Annotated[int, Range(20, 100_000)] = 400
    held_out: Annotated[int, Range(1, 100_000)] = 100
    in_twin: Annotated[int, Range(0, 100_000)] = 30
    depth: Annotated[int, Range(1, 8, unit="questions")] = 4
    seed: Annotated[int, Range(0)] = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A workload and the surrogate's optimum of it."""

    workload: OptimumCommand
    adapters: int
    slots: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the tree says of a kind of workload: medians on the grid, and the ranges that hold most of its answers."""

    adapters: int
    slots: int
    adapters_range: tuple[int, int]
    slots_range: tuple[int, int]
    workloads: int

    def __str__(self) -> str:
        (a, b), (c, d) = self.adapters_range, self.slots_range
        return f"serve {self.adapters} adapters ({a} to {b}) on {self.slots} slots ({c} to {d})"


@dataclass(frozen=True, slots=True)
class Question:
    """`feature <= threshold`? then `yes`, else `no`."""

    feature: int
    threshold: float
    yes: Question | Leaf
    no: Question | Leaf


def drawn_workload(rng: np.random.Generator, options: TreeCommand) -> OptimumCommand:
    """One to three rates, ranks and mean lengths at random."""

    def between(ends: tuple[float, float]) -> float:
        return float(f"{math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1]))):.3g}")

    rates = tuple(between(RATES) for _ in range(int(rng.integers(1, 4))))
    return OptimumCommand(
        calibration=options.calibration, rates=rates, ranks=RANKS[int(rng.integers(len(RANKS)))],
        prompt_tokens=between(PROMPTS), output_tokens=between(OUTPUTS), slots=SLOTS, adapters=ADAPTERS, rule="stable",
        source=options.source, seed=options.seed,
    )  # fmt: skip


def features(workload: OptimumCommand) -> Array:
    """What the tree may ask of a workload, (F,), in the order of `FEATURES`."""
    mean = sum(workload.rates) / len(workload.rates)
    tokens = workload.prompt_tokens + workload.output_tokens
    busiest = max(workload.rates) / mean
    lengths = workload.prompt_tokens, workload.output_tokens
    return np.array([mean * tokens, mean * workload.output_tokens, mean, busiest, *lengths, max(workload.ranks)])


def answers(options: TreeCommand, calibration: Calibration, count: int, stream: int) -> Iterator[Answer]:
    """Random workloads with the surrogate's optimum; those that starve with the fewest adapters are passed over."""
    rng = np.random.default_rng([options.seed, stream])
    found = 0
    while found < count:
        workload = drawn_workload(rng, options)
        try:
            best = optimum(best_points(workload, calibration))
        except InfeasibleError:
            continue
        found += 1
        yield Answer(workload, best.adapters, best.slots)


def fitted(known: Sequence[Answer], depth: int) -> Question | Leaf:
    """A tree of at most `depth` questions.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.tree import DecisionTreeRegressor
    except ModuleNotFoundError as error:
        raise InputError(
            "the decision tree needs scikit-learn, which is not installed",
            where="surrogates tree",
            remedy="pip install 'adapter-placement[train]'",
        ) from error
    asked = np.array([features(a.workload) for a in known])
    told = np.log([[a.adapters, a.slots] for a in known])
    # The best split is the same whatever the scale of a feature; thresholds are midpoints, so logarithms place them.
    least = max(2, math.ceil(LEAST_LEAF * len(known)))
    fit = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=least, random_state=0).fit(np.log(asked), told)
    return _grown(fit.tree_, 0, fit.apply(np.log(asked)), known)


def _grown(nodes: Any, node: int, leaf_of: NDArray[np.int64], known: Sequence[Answer]) -> Question | Leaf:
    """The part of scikit-learn's tree below a node."""
    left, right = int(nodes.children_left[node]), int(nodes.children_right[node])
    if left < 0:
        own = [a for a, leaf in zip(known, leaf_of.tolist(), strict=True) if leaf == node]
        adapters, slots = np.array([a.adapters for a in own]), np.array([a.slots for a in own])
        median_adapters, median_slots = (int(np.quantile(n, 0.5, method="lower")) for n in (adapters, slots))
        return Leaf(median_adapters, median_slots, _range(adapters), _range(slots), len(own))
    yes, no = _grown(nodes, left, leaf_of, known), _grown(nodes, right, leaf_of, known)
    # Of two leaves that say the same, one is enough.
    if isinstance(yes, Leaf) and isinstance(no, Leaf) and str(yes) == str(no):
        return replace(yes, workloads=yes.workloads + no.workloads)
    return Question(int(nodes.feature[node]), math.exp(float(nodes.threshold[node])), yes, no)


def _range(numbers: NDArray[np.int64]) -> tuple[int, int]:
    low, high = np.quantile(numbers, LOW, method="lower"), np.quantile(numbers, HIGH, method="higher")
    return int(low), int(high)


def answer_of(tree: Question | Leaf, asked: Array) -> Leaf:
    """The leaf of a workload with features (F,)."""
    while isinstance(tree, Question):
        tree = tree.yes if asked[tree.feature] <= tree.threshold else tree.no
    return tree


def rules(tree: Question | Leaf, indent: str = "") -> Iterator[str]:
    """The tree as text, a line a question or a leaf."""
    if isinstance(tree, Leaf):
        yield f"{indent}{tree}"
        return
    name, shape = FEATURES[tree.feature]
    yield f"{indent}if {name} <= {shape.format(tree.threshold)}:"
    yield from rules(tree.yes, indent + "    ")
    yield f"{indent}else:"
    yield from rules(tree.no, indent + "    ")


def scored(tree: Question | Leaf, held_out: Sequence[Answer], calibration: Calibration) -> dict[str, float]:
    """Against the surrogate's answers: how far the numbers are, and what a leaf's choices are worth."""
    pairs = [(answer_of(tree, features(a.workload)), a) for a in held_out]
    figures: dict[str, float] = {}
    for name, grid in (("adapters", ADAPTERS), ("slots", SLOTS)):
        steps = [abs(grid.index(getattr(leaf, name)) - grid.index(getattr(a, name))) for leaf, a in pairs]
        figures |= {f"same_{name}": float(np.mean([s == 0 for s in steps]))}
        figures |= {f"same_or_next_{name}": float(np.mean([s <= 1 for s in steps]))}
    for label, careful in (("median", False), ("careful", True)):
        parts = [worth(chosen(leaf, careful=careful), a, calibration) for leaf, a in pairs]
        healthy = [part for part in parts if part > 0]
        figures[f"healthy_{label}"] = len(healthy) / len(parts)
        figures[f"served_{label}"] = float(np.mean(healthy)) if healthy else 0.0
    return figures


def chosen(leaf: Leaf, *, careful: bool) -> tuple[int, int]:
    """Adapters and slots that a leaf recommends; careful: the low end of its range of adapters."""
    adapters = leaf.adapters_range[0] if careful else leaf.adapters
    return adapters, min(leaf.slots, adapters)


def worth(choice: tuple[int, int], answer: Answer, calibration: Calibration, source: Source | None = None) -> float:
    """Adapters of a choice as a share of the surrogate's optimum, where the choice is healthy; 0 where it is not.

    Args:
        source: who judges; None = the surrogate itself.
    """
    workload = answer.workload if source is None else replace(answer.workload, source=source)
    column = column_of(*choice, workload, calibration.stamp.gpu_type)
    healthy, _ = judge_of(workload, calibration)(column)
    return choice[0] / answer.adapters if healthy else 0.0


def played(tree: Question | Leaf, sample: Sequence[Answer], calibration: Calibration) -> dict[str, float]:
    """Shares of choices that the twin finds healthy in a simulated hour: the tree's, and the surrogate's own."""
    judged = []
    for answer in sample:
        leaf = answer_of(tree, features(answer.workload))
        choices = chosen(leaf, careful=False), chosen(leaf, careful=True), (answer.adapters, answer.slots)
        judged.append([worth(choice, answer, calibration, "twin") > 0 for choice in choices])
    names = ("healthy_median_in_twin", "healthy_careful_in_twin", "surrogates_own_in_twin")
    return {name: float(share) for name, share in zip(names, np.mean(judged, axis=0).tolist(), strict=True)}


def run_tree(options: TreeCommand) -> int:
    """Distils the surrogate into a tree, prints its rules and how good they are."""
    if options.source not in ("neural", "physics"):
        raise InputError(f"source {options.source!r} is no surrogate", where="source", remedy="use neural or physics")
    calibration = load_calibration(options.calibration)
    tree = fitted(list(answers(options, calibration, options.workloads, 0)), options.depth)
    held_out = list(answers(options, calibration, options.held_out, 1))
    print("\n".join(rules(tree)))
    print(
        "medians of a leaf, and ranges that hold eight tenths of its workloads; the careful choice: the fewest adapters"
    )
    summary = scored(tree, held_out, calibration)
    if options.in_twin:
        summary |= played(tree, held_out[: options.in_twin], calibration)
    print(json.dumps({name: round(value, 3) for name, value in summary.items()}))
    return 0
