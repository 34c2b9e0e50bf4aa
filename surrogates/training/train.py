"""Trains all networks of one calibration on the CPU: minutes on two cores, the same weights for the same seed.

Planning networks (input-convex) per rule: an ensemble of max-affine gauges, and hinge sums for the two loads.
Free networks: an ensemble for all metrics and one for the distance to both boundaries.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from surrogates.model.artifact import Artifact
from surrogates.model.forward import perceptron_input
from surrogates.model.metric_scales import to_targets
from surrogates.training.assemble import assemble, check_calibration, loads_of
from surrogates.training.networks import HingeSum, MaxAffine, Perceptron, stack_blocks
from surrogates.training.records import Records
from surrogates.training.training_data import LOG_FACTORS, WEIGHT_WIDTH, RayPoints, Tables, build_tables
from twin.figures.health import RULES, Rule
from twin.server.calibration import Calibration

Array = NDArray[np.float64]
Blocks = dict[str, dict[str, Array]]

#: Weight of healthy columns in the fit of the metrics: placements are made of them.
HEALTHY_WEIGHT = 3.0


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Sizes and lengths of all fits."""

    seed: int = 0
    held_out_share: float = 0.25
    facets: int = 8
    hinges: int = 6
    gauges: int = 2
    perceptrons: int = 5
    hidden: int = 32
    perceptron_hidden: int = 96
    gauge_steps: int = 3000
    load_steps: int = 3000
    perceptron_steps: int = 6000
    batch_size: int = 1024
    monotone_weight: float = 1.0
    coverage: float = 0.95


class _Fit(lightning.LightningModule):
    """Adam with a cosine schedule on a loss that knows how far the training is (0..1)."""

    def __init__(self, net: nn.Module, loss: Callable[[list[Tensor], float], Tensor], rate: float, steps: int) -> None:
        super().__init__()
        self.net, self._loss, self._rate, self._steps = net, loss, rate, steps

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self._loss(batch, self.global_step / self._steps)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self._rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._steps, eta_min=self._rate / 50)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _fit(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, list[Tensor], float], Tensor],
    tensors: list[Tensor],
    *,
    seed: int,
    steps: int,
    batch_size: int,
    rate: float,
) -> nn.Module:
    """Fits one net; initial weights and batch order depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        order = RandomSampler(tensors[0], generator=torch.Generator().manual_seed(seed))
        batches = BatchSampler(order, min(batch_size, len(tensors[0])), drop_last=False)
        # Indexing a whole batch at once: a loader that collects single rows would take most of the time.
        loader = DataLoader(TensorDataset(*tensors), sampler=batches, batch_size=None)
        fit = _Fit(net, lambda batch, progress: loss(net, batch, progress), rate, steps)
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Hints about loader processes and logging do not apply to tables that fit into the cache.
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, deterministic=True,
            )  # fmt: skip
            trainer.fit(fit, loader)
    return net.eval()


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.as_tensor(array, dtype=torch.long if array.dtype.kind in "iu" else torch.float32)


def _fit_gauge(tables: Tables, points: RayPoints, options: TrainingOptions, seed: int) -> dict[str, Array]:
    scale = tables.scaling.feature_scale(tables.slots[points.setting][:, None])
    phi = points.phi / scale[:, None, :]
    rays, steps, features = phi.shape
    context = _tensor(tables.scaling.context(tables.contexts))
    target = np.broadcast_to(LOG_FACTORS, (rays, steps))
    tensors = [
        _tensor(phi.reshape(-1, features)),
        _tensor(np.repeat(points.setting, steps)),
        _tensor(target.reshape(-1)),
        _tensor(np.exp(-((target / WEIGHT_WIDTH) ** 2)).reshape(-1)),
        _tensor(np.repeat(points.adapter_phi / scale, steps, axis=0)),
    ]

    def loss(net: nn.Module, batch: list[Tensor], progress: float) -> Tensor:
        assert isinstance(net, MaxAffine)
        x, setting, y, weight, single = batch
        temperature = 0.3 * (0.01 / 0.3) ** (progress / 0.8) if progress < 0.8 else 0.0
        error = functional.huber_loss(net(x, context, setting, temperature), y, reduction="none", delta=0.1)
        # More load never helps: no facet may fall when an adapter joins (a solver would look for such facets).
        W, _ = net.facets(context)
        falling = torch.relu(-torch.einsum("bjf,bf->bj", W[setting], single))
        return torch.as_tensor((weight * error).mean() + options.monotone_weight * 0.01 * falling.square().mean())

    net = _fit(
        lambda: MaxAffine(features, context.shape[1], options.facets, options.hidden), loss, tensors,
        seed=seed, steps=options.gauge_steps, batch_size=options.batch_size, rate=0.01,
    )  # fmt: skip
    assert isinstance(net, MaxAffine)
    return net.hyper.block()


def _fit_load(tables: Tables, rule: Rule, target: Array, options: TrainingOptions, seed: int) -> dict[str, Array]:
    records = tables.records
    use = tables.healthy[rule] & ~tables.held_out[records.ray] & (target > 1e-6)
    scale = tables.scaling.feature_scale(tables.slots[tables.setting[use]][:, None])
    context = _tensor(tables.scaling.context(tables.contexts))
    tensors = [_tensor(tables.phi[use] / scale), _tensor(tables.setting[use]), _tensor(np.log(target[use]))]

    def loss(net: nn.Module, batch: list[Tensor], progress: float) -> Tensor:
        x, setting, y = batch
        return functional.huber_loss(torch.log(net(x, context, setting) + 1e-9), y, delta=0.1)

    net = _fit(
        lambda: HingeSum(
            tensors[0].shape[1], context.shape[1], options.hinges, options.hidden, float(np.median(target[use]))
        ),
        loss, tensors, seed=seed, steps=options.load_steps, batch_size=options.batch_size, rate=0.01,
    )  # fmt: skip
    assert isinstance(net, HingeSum)
    return net.block()


def _fit_perceptrons(
    inputs: Array, targets: Array, weights: Array, options: TrainingOptions, seed: int
) -> dict[str, Array]:
    """Ensemble on standardised inputs and targets with weights (P,); missing targets carry no loss."""
    ends = {
        "in_mean": inputs.mean(axis=0),
        "in_std": np.maximum(inputs.std(axis=0), 1e-6),
        "out_mean": np.nanmean(targets, axis=0),
        "out_std": np.maximum(np.nanstd(targets, axis=0), 1e-6),
    }
    known = np.isfinite(targets)
    scaled = np.where(known, (targets - ends["out_mean"]) / ends["out_std"], 0.0)
    tensors = [_tensor((inputs - ends["in_mean"]) / ends["in_std"]), _tensor(scaled), _tensor(known * weights[:, None])]

    def loss(net: nn.Module, batch: list[Tensor], progress: float) -> Tensor:
        x, y, weight = batch
        return torch.as_tensor((weight * functional.huber_loss(net(x), y, reduction="none", delta=0.5)).mean())

    blocks = []
    for k in range(options.perceptrons):
        net = _fit(
            lambda: Perceptron(inputs.shape[1], targets.shape[1], options.perceptron_hidden), loss, tensors,
            seed=seed + k, steps=options.perceptron_steps, batch_size=options.batch_size // 2, rate=0.004,
        )  # fmt: skip
        assert isinstance(net, Perceptron)
        blocks.append(net.block())
    return stack_blocks(blocks) | ends


def _distance_table(tables: Tables) -> tuple[Array, Array, NDArray[np.int64]]:
    """Features (P, F), log distance to both boundaries (P, 2) and setting (P,) of points along training rays."""
    phi, distance, setting = [], [], []
    for rule, points in tables.points.items():
        train_points = points.select(~tables.held_out[points.ray])
        log_theta = np.log(tables.records.theta[rule][train_points.ray])[:, None] + LOG_FACTORS
        others = [np.log(tables.records.theta[r][train_points.ray])[:, None] for r in RULES]
        # Far away only the side matters; the clip keeps the fit's attention at the boundaries.
        distance.append(np.stack([np.clip(log_theta - other, -1.0, 1.0) for other in others], axis=2).reshape(-1, 2))
        phi.append(train_points.phi.reshape(-1, points.phi.shape[2]))
        setting.append(np.repeat(train_points.setting, len(LOG_FACTORS)))
    return np.concatenate(phi), np.concatenate(distance), np.concatenate(setting)


def _inputs(tables: Tables, phi: Array, setting: NDArray[np.int64]) -> Array:
    scale = tables.scaling.feature_scale(tables.slots[setting][:, None])
    return perceptron_input(phi, tables.scaling.context(tables.contexts)[setting], scale)


def train(
    records: Records,
    calibration: Calibration,
    options: TrainingOptions,
    on_step: Callable[[str], None] = lambda step: None,
) -> Artifact:
    """Trains everything and returns the artifact with its held-out scores.

    Raises:
        InputError: the records belong to another calibration.
    """
    check_calibration(records, calibration)
    threads = torch.get_num_threads()
    # One thread: the batches are small, and sums in one order give the same weights on every machine.
    torch.set_num_threads(1)
    try:
        return _train(records, calibration, options, on_step)
    finally:
        torch.set_num_threads(threads)


def _train(
    records: Records, calibration: Calibration, options: TrainingOptions, on_step: Callable[[str], None]
) -> Artifact:
    tables = build_tables(records, calibration, held_out_share=options.held_out_share, seed=options.seed)
    blocks: Blocks = {}
    for k, rule in enumerate(RULES):
        points = tables.points[rule]
        points = points.select(~tables.held_out[points.ray])
        on_step(f"gauge, rule {rule}")
        seed = options.seed + 100 * (k + 1)
        blocks[f"{rule}.gauge"] = stack_blocks(
            [_fit_gauge(tables, points, options, seed + e) for e in range(options.gauges)]
        )
        on_step(f"loads, rule {rule}")
        for j, (name, target) in enumerate(loads_of(records).items()):
            blocks[f"{rule}.{name}"] = _fit_load(tables, rule, target, options, seed + 50 + j)
    on_step("distance to the boundaries")
    phi, distance, setting = _distance_table(tables)
    blocks["distance"] = _fit_perceptrons(
        _inputs(tables, phi, setting), distance, np.ones(len(phi)), options, options.seed + 300
    )
    on_step("metrics")
    use = ~tables.held_out[records.ray]
    targets = to_targets({k: v[use] for k, v in records.metrics.items()}, tables.phi[use])
    inputs = _inputs(tables, tables.phi[use], tables.setting[use])
    weights = np.where(tables.healthy["stable"][use], HEALTHY_WEIGHT, 1.0)
    blocks["metrics"] = _fit_perceptrons(inputs, targets, weights, options, options.seed + 400)
    on_step("margins and scores")
    return assemble(tables, calibration, blocks, coverage=options.coverage, options=asdict(options))
