"""Trains the residual on the CPU: minutes, the same weights for the same rays and seed.

Each member of an ensemble is trained without one part of the rays and tells on that part how large its errors are: no
ray is lost, and scores, scales and quantiles come from rays that were not seen.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from surrogates.residual.around import base_name
from surrogates.residual.assemble import Fitted, scores_of
from surrogates.residual.forward import Network, combined
from surrogates.residual.networks import Ensemble, laplace_loss
from surrogates.residual.probe import probe
from surrogates.residual.samples import Samples, samples_of
from surrogates.residual.shards import Ray
from surrogates.residual.weights import Residual
from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.server.calibration import Calibration

Floats = NDArray[np.float64]

LOGGERS = ("csv", "tensorboard", "none")
#: Inputs are held within these quantiles of what was trained on, predictions within the others.
IN_QUANTILES, OUT_QUANTILES = (0.002, 0.998), (0.001, 0.999)
#: Levels at which quantiles of the errors are stored.
LEVELS = np.concatenate([[0.005, 0.01, 0.02], np.arange(0.05, 0.951, 0.05), [0.98, 0.99, 0.995]])


@dataclass(frozen=True, slots=True)
class ResidualOptions:
    """Sizes and lengths of the fits.

    Args:
        members: perceptrons of an ensemble. Each leaves out one of `folds` parts of the rays.
        boundary_steps, column_steps: of the two ensembles.
        rate: of learning, at first. decay: of weights.
        logger: `csv`, `tensorboard` or `none`.
    """

    seed: Annotated[int, Range(0)] = 0
    members: Annotated[int, Range(2, 64)] = 5
    folds: Annotated[int, Range(2, 64)] = 5
    hidden: Annotated[int, Range(1, 1024)] = 48
    boundary_steps: Annotated[int, Range(1)] = 1000
    column_steps: Annotated[int, Range(1)] = 5000
    batch_size: Annotated[int, Range(1)] = 512
    rate: Annotated[float, Range(above=0)] = 0.01
    decay: Annotated[float, Range(0)] = 0.02
    dropout: Annotated[float, Range(0, below=1)] = 0.1
    logger: str = "csv"

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"training.{name}")
        if self.members < self.folds:
            raise InputError(
                f"training.members {self.members} is below training.folds {self.folds}",
                remedy="some rays would be held out by nobody: give as many members as folds, or more",
            )
        if self.logger not in LOGGERS:
            raise InputError(f"training.logger {self.logger!r} is not known", remedy=f"use one of {', '.join(LOGGERS)}")


class _Fit(lightning.LightningModule):
    """AdamW with a cosine schedule."""

    def __init__(self, net: Ensemble, options: ResidualOptions, steps: int) -> None:
        super().__init__()
        self.net, self._options, self._steps = net, options, steps

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, target, weight = batch
        mean, log_scale = self.net(x)
        loss = laplace_loss(mean, log_scale, target, weight.transpose(0, 1))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        rate = self._options.rate
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=self._options.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=self._steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def folds_of(rays: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The part of each ray, (R,)."""
    return np.random.default_rng([seed, rays]).permutation(np.arange(rays) % folds)


def fit(
    inputs: Floats, targets: Floats, fold: NDArray[np.int64], options: ResidualOptions, *,
    steps: int, name: str, logs: Path | None = None,
) -> Fitted:  # fmt: skip
    """Fits an ensemble on P samples, and tells how far it is off on those that its members left out.

    Args:
        inputs: (P, F). targets: (P, O), NaN = unknown.
        fold: part of the rays that a sample belongs to, (P,).
        logs: folder for the logs of the fit called `name`.
    """
    known = np.isfinite(targets)
    low, high = np.quantile(inputs, IN_QUANTILES, axis=0)
    held = np.clip(inputs, low, high)
    out_low, out_high = np.nanquantile(targets, OUT_QUANTILES, axis=0)
    bounded = np.clip(targets, out_low, out_high)
    ends = {
        "in_low": low, "in_high": high, "in_mean": held.mean(0), "in_std": np.maximum(held.std(0), 1e-6),
        "out_mean": np.nanmedian(bounded, 0), "out_std": np.maximum(np.nanstd(bounded, 0), 1e-6),
        "out_low": out_low, "out_high": out_high,
    }  # fmt: skip
    x = ((held - ends["in_mean"]) / ends["in_std"]).astype(np.float32)
    y = np.where(known, (bounded - ends["out_mean"]) / ends["out_std"], 0.0)
    of_member = np.arange(options.members) % options.folds
    # Rare outputs count as much as common ones.
    weight = known / np.maximum(known.mean(axis=0), 1e-9)
    trained = (fold[:, None] != of_member).astype(np.float64)
    tensors = [_tensor(x), _tensor(y), _tensor(trained[:, :, None] * weight[:, None, :])]
    net = _train(tensors, options, steps, name, logs)
    arrays: dict[str, Any] = {**ends, **net.arrays()}
    outputs = targets.shape[1]
    blank = {"levels": LEVELS, "quantiles": np.zeros((outputs, len(LEVELS)))}
    network = Network(**arrays, **blank)
    made = network.members(inputs)
    # What the members say that left a sample out, and the scale that the whole ensemble gives it: the same that it will
    # give to others, so that their quotients are comparable.
    mean, scale = np.empty(targets.shape), combined(made)[1] * ends["out_std"]
    for part in range(options.folds):
        left_out = fold == part
        mean[left_out] = combined(made[of_member == part][:, left_out])[0]
    mean = np.clip(mean * ends["out_std"] + ends["out_mean"], out_low, out_high)
    errors = (targets - mean) / scale
    quantiles = np.stack([np.nanquantile(errors[:, k], LEVELS) for k in range(outputs)])
    return Fitted(Network(**arrays, levels=LEVELS, quantiles=quantiles), mean, scale)


def _train(tensors: list[Tensor], options: ResidualOptions, steps: int, name: str, logs: Path | None) -> Ensemble:
    """One fit by Lightning; initial weights and the order of the batches depend on the seed alone."""
    x, y, _ = tensors
    threads = torch.get_num_threads()
    # One thread: the batches are small, and sums in one order give the same weights on every machine.
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            net = Ensemble(options.members, x.shape[1], y.shape[1], options.hidden, options.dropout)
            order = RandomSampler(x, generator=torch.Generator().manual_seed(options.seed))
            batches = BatchSampler(order, min(options.batch_size, len(x)), drop_last=False)
            # Indexing a whole batch at once: a loader that collects single rows would take most of the time.
            loader = DataLoader(TensorDataset(*tensors), sampler=batches, batch_size=None)
            logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                # Hints about loader processes do not apply to tables that fit into the cache.
                warnings.simplefilter("ignore")
                trainer = lightning.Trainer(
                    max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, logger=_logger(options, name, logs),
                    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                    deterministic=True, gradient_clip_val=1.0, log_every_n_steps=20,
                )  # fmt: skip
                trainer.fit(_Fit(net, options, steps), loader)
    finally:
        torch.set_num_threads(threads)
    return net.eval()


def _logger(options: ResidualOptions, name: str, logs: Path | None) -> Logger | bool:
    if logs is None or options.logger == "none":
        return False
    if options.logger == "csv":
        return CSVLogger(str(logs), name=name)
    try:
        return TensorBoardLogger(str(logs), name=name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"training.logger=tensorboard needs the package {error.name!r}",
            remedy="pip install tensorboard, or use training.logger=csv",
        ) from error


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32)


def fit_boundary(samples: Samples, options: ResidualOptions, logs: Path | None = None) -> Fitted:
    """The correction of theta*."""
    fold = folds_of(len(samples), options.folds, options.seed)
    return fit(
        samples.boundary, samples.log_theta[:, None], fold, options, steps=options.boundary_steps, name="boundary",
        logs=logs,
    )  # fmt: skip


def fit_columns(samples: Samples, options: ResidualOptions, logs: Path | None = None) -> Fitted:
    """The corrections of a column at its own load; columns without a steady state are left out."""
    fold = folds_of(len(samples), options.folds, options.seed)[samples.ray]
    return fit(
        samples.column, samples.targets, fold, options, steps=options.column_steps, name="column", logs=logs
    )  # fmt: skip


def train_residual(
    rays: Sequence[Ray], calibrations: Mapping[str, Calibration], spec: Mapping[str, Any], options: ResidualOptions, *,
    without: Collection[str] = (), logs: Path | None = None, on_step: Callable[[str], None] = lambda step: None,
) -> Residual:  # fmt: skip
    """Trains both ensembles.

    Args:
        spec: what the rays were asked for, for the record.
        without: shipped calibrations whose rays, and those of calibrations drawn around them, are left out.

    Raises:
        InputError: no ray is left, or `without` names a calibration that the rays do not know.
    """
    unknown = set(without) - {base_name(name) for name in calibrations}
    if unknown:
        raise InputError(
            f"without names {sorted(unknown)}, of which there are no rays",
            remedy=f"use some of {', '.join(sorted({base_name(name) for name in calibrations}))}",
        )
    used = [ray for ray in rays if base_name(ray.calibration) not in without]
    if len(used) < options.folds:
        raise InputError(
            f"{len(used)} rays are too few for {options.folds} folds", remedy="simulate more: python -m surrogates rays"
        )
    on_step(f"physics of {len(used)} rays")
    samples = samples_of(used, calibrations)
    on_step("boundary")
    boundary = fit_boundary(samples, options, logs)
    on_step("columns")
    column = fit_columns(samples, options, logs)
    names, counts = np.unique(samples.calibration, return_counts=True)
    meta = {
        "options": asdict(options),
        "rays": {
            "spec": dict(spec),
            "without": sorted(without),
            "trained_on": dict(zip(names.tolist(), counts.tolist(), strict=True)),
            "columns": len(samples.column),
            "skipped": samples.skipped,
        },
        "physics_probe": probe().tolist(),
        "scores_of_rays_left_out": scores_of(samples, boundary, column),
    }
    return Residual(boundary.network, column.network, meta)
