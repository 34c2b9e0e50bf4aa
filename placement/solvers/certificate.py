r"""Price lists: a bound that anyone can check.

**Claim.** Let :math:`f_o(\phi) = v_o^\top \max(W_o\phi + b_o, 0) + q_o^\top\phi + r_o` be the cost of a column under
option o, :math:`H_o\psi + h_o \le 0` its rules and :math:`u_k` the most members of class k on one GPU. Let
:math:`g_c, k_c` be cuts, :math:`f_o(\Psi x) \ge g_c \cdot x + k_c` for those of option o. Take any

.. math::
    \mu_o \ge 0,\quad \kappa_c \ge 0,\quad \rho_o = 1 - \textstyle\sum_{c: o(c) = o} \kappa_c \ge 0,\quad
    0 \le \lambda_o \le \rho_o v_o,\quad \nu_{ko} \ge 0,\quad \sigma_t \ge 0,\quad \sigma_0 \ge 0

(multipliers of the rules, the cuts, the epigraph rows, the class caps, the stock rows and the limit on all GPUs). With

.. math::
    p_{io} &= (W_o^\top\lambda_o + \rho_o q_o + H_o^\top\mu_o)\cdot\psi_i + \textstyle\sum_c\kappa_c g_{ci}
    + \nu_{k(i)o}, \qquad \pi_i = \min_{o \text{ allowed for } i} p_{io} \\
    s_o &= \rho_o r_o + b_o^\top\lambda_o + h_o^\top\mu_o + \textstyle\sum_c\kappa_c k_c
    - \textstyle\sum_k u_k\nu_{ko} + \sigma_{t(o)} + \sigma_0, \qquad \delta = \max_o \max(-s_o, 0)

every placement that uses at most :math:`S_t` GPUs of type t and :math:`G` GPUs in all costs at least

.. math:: \sum_i \pi_i - \sum_t S_t\sigma_t - G\sigma_0 - G\delta .

**Proof.** Take one GPU of the placement, option o, column :math:`x` (0/1 over items, at most :math:`u_k` of class k).
Since :math:`\rho v \max(s, 0) \ge \lambda s` for :math:`0 \le \lambda \le \rho v`, the cost, as
:math:`\rho_o` times its own form and :math:`\kappa_c` times each cut, is

.. math::
    f_o(\Psi x) \ge \lambda_o^\top(W_o\Psi x + b_o) + \rho_o (q_o^\top\Psi x + r_o)
    + \textstyle\sum_c\kappa_c(g_c\cdot x + k_c) .

Adding the non-positive numbers :math:`\mu_o^\top(H_o\Psi x + h_o)` and :math:`\sum_k\nu_{ko}(\sum_{i\in k}x_i - u_k)`
keeps the inequality, hence :math:`f_o(\Psi x) \ge \sum_i p_{io}x_i + s_o - \sigma_{t(o)} - \sigma_0
\ge \sum_i \pi_i x_i - \sigma_{t(o)} - \sigma_0 - \delta`: *no GPU serves adapters worth more than its price*. Sum over
the GPUs: every item is on exactly one, at most :math:`S_t` are of type t and at most :math:`G` in all. QED.

The best multipliers are the duals of the aggregate perspective LP (there :math:`\mu, \lambda, \nu, \sigma` are the
duals of its rows and :math:`s_o \ge 0` is the dual constraint of :math:`y_o`), but any others are valid too. The
prices are computed for the individual items, although the LP only knows class means. :math:`G` may always be taken
as at most the number of items, because a GPU without items is not part of a placement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.problem.prices import ROUNDING, PriceTable, class_caps, fleet_limits
from placement.problem.problem import PlacementProblem
from placement.problem.rows import ColumnRows, Cuts, column_rows

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


#: A rule binds where its price is this share of the bound.
BINDING = 1e-6


@dataclass(frozen=True, slots=True)
class Certificate:
    """Multipliers, in the units of `placement.problem.rows`. O options, J rows, E hinges, K classes, T GPU types.

    Args:
        mu: of the rules, (O, J), >= 0.
        lam: of the epigraph rows, (O, E), within [0, v].
        nu: of the class caps, (K, O), >= 0.
        sigma: of the stock of each GPU type, (T,), >= 0: what one more GPU of that type would save.
        sigma_total: of `max_gpus`, >= 0.
        class_of: class of each item, (N,).
        kappa: of the cuts, (C,), >= 0, at most 1 in sum over those of an option.
    """

    mu: Array
    lam: Array
    nu: Array
    sigma: Array
    sigma_total: float
    class_of: Indices
    kappa: Array = field(default_factory=lambda: np.zeros(0))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists; floats survive JSON exactly."""
        return {
            "mu": self.mu.tolist(),
            "lam": self.lam.tolist(),
            "nu": self.nu.tolist(),
            "sigma": self.sigma.tolist(),
            "sigma_total": self.sigma_total,
            "class_of": self.class_of.tolist(),
            "kappa": self.kappa.tolist(),
        }


def certificate_from_dict(data: Mapping[str, Any]) -> Certificate:
    """Reads what `Certificate.to_dict` wrote."""
    classes = len(data["nu"])
    lam = np.array(data["lam"], dtype=np.float64)
    return Certificate(
        mu=np.array(data["mu"], dtype=np.float64),
        lam=lam.reshape(len(data["mu"]), -1),
        nu=np.array(data["nu"], dtype=np.float64).reshape(classes, -1),
        sigma=np.array(data["sigma"], dtype=np.float64),
        sigma_total=float(data["sigma_total"]),
        class_of=np.array(data["class_of"], dtype=np.int64),
        kappa=np.array(data.get("kappa", []), dtype=np.float64),
    )


def option_prices(rows: ColumnRows, certificate: Certificate, allowed: NDArray[np.bool_]) -> Array:
    """p_io: worth of item i on a GPU of option o, objective units, (N, O); inf where not allowed."""
    own = _kept(rows, certificate)[:, None] * rows.q
    slopes = np.einsum("oe,oed->od", certificate.lam, rows.W) + own + np.einsum("oj,ojd->od", certificate.mu, rows.H)
    prices = rows.psi @ slopes.T + certificate.nu[certificate.class_of]
    for c in np.flatnonzero(certificate.kappa).tolist():
        prices[:, rows.cuts.option[c]] += certificate.kappa[c] * rows.cuts.slope[c]
    return np.asarray(np.where(allowed, prices, np.inf))


def item_prices(rows: ColumnRows, certificate: Certificate, allowed: NDArray[np.bool_]) -> Array:
    """Price pi of each item, objective units, (N,): its share of the bound."""
    return np.asarray(option_prices(rows, certificate, allowed).min(axis=1))


def price_list_bound(problem: PlacementProblem, rows: ColumnRows, certificate: Certificate) -> float:
    """The bound of the claim in floating point; `exact_bound` is the same in rationals."""
    stock, total = fleet_limits(problem)
    caps = class_caps(problem, certificate.class_of)
    surplus = _openings(rows, certificate, caps) + certificate.sigma[problem.option_type] + certificate.sigma_total
    deficit = float(np.maximum(-surplus, 0.0).max())
    prices = item_prices(rows, certificate, problem.allowed)
    return (
        math.fsum(prices.tolist())
        - float(stock @ certificate.sigma)
        - total * certificate.sigma_total
        - total * deficit
    )


def _kept(rows: ColumnRows, certificate: Certificate) -> Array:
    """rho_o: what is left of the cost's own form beside the cuts, (O,)."""
    return np.asarray(1.0 - np.bincount(rows.cuts.option, certificate.kappa, minlength=len(rows.r)))


def _openings(rows: ColumnRows, certificate: Certificate, caps: Indices) -> Array:
    """s_o without the stock multipliers, (O,)."""
    cut = np.bincount(rows.cuts.option, certificate.kappa * rows.cuts.constant, minlength=len(rows.r))
    own = _kept(rows, certificate) * rows.r + cut
    return np.asarray(
        own + (rows.b * certificate.lam).sum(axis=1) + (rows.h * certificate.mu).sum(axis=1) - caps @ certificate.nu
    )


def cleaned(problem: PlacementProblem, rows: ColumnRows, certificate: Certificate) -> Certificate:
    """Clips solver noise: signs, lambda <= v, and s_o >= 0 by scaling the option's multipliers down a little."""
    mu = np.where(rows.kind == 0, 0.0, np.maximum(certificate.mu, 0.0))
    kappa = np.maximum(certificate.kappa, 0.0)
    shared = np.bincount(rows.cuts.option, kappa, minlength=len(rows.r))
    kappa = kappa / np.maximum(shared * (1 + 1e-12), 1.0)[rows.cuts.option]
    left = np.maximum(_kept(rows, replace(certificate, kappa=kappa)), 0.0)[:, None]
    lam = np.clip(certificate.lam, 0.0, left * rows.v * (1 - 1e-12))
    nu = np.maximum(certificate.nu, 0.0)
    sigma = np.maximum(certificate.sigma, 0.0)
    total = max(certificate.sigma_total, 0.0)
    clean = replace(certificate, mu=mu, lam=lam, nu=nu, sigma=sigma, sigma_total=total, kappa=kappa)
    opening = _openings(rows, clean, class_caps(problem, certificate.class_of))
    free = rows.r + sigma[problem.option_type] + clean.sigma_total
    spent = rows.r - opening
    short = (spent > free) & (free >= 0) & (spent > 0)
    factor = np.where(short, free / np.where(short, spent, 1.0) * (1 - 1e-12), 1.0)
    return replace(
        clean, mu=mu * factor[:, None], lam=lam * factor[:, None], nu=nu * factor,
        kappa=kappa * factor[rows.cuts.option],
    )  # fmt: skip


def price_table(rows: ColumnRows, certificate: Certificate, reach: float) -> PriceTable:
    """A certificate without cuts as prices per feature."""
    mu, lam = certificate.mu, certificate.lam
    slope = np.einsum("oe,oed->od", lam, rows.W) + rows.q + np.einsum("oj,ojd->od", mu, rows.H)
    size = np.einsum("oe,oed->od", lam, np.abs(rows.W)) + np.abs(rows.q) + np.einsum("oj,ojd->od", mu, np.abs(rows.H))
    gamma = rows.r + (rows.b * lam).sum(axis=1) + (rows.h * mu).sum(axis=1)
    return PriceTable(
        beta=slope / rows.feature_scale, size=size / rows.feature_scale, gamma=gamma, nu=certificate.nu,
        class_of=certificate.class_of, sigma=certificate.sigma, sigma_total=certificate.sigma_total, mu=mu, lam=lam,
        reach=reach, rests_on=tuple(np.unique(rows.kind[mu * np.abs(rows.h) > BINDING * abs(reach)]).tolist()),
    )  # fmt: skip


def rounded_bound(rows: ColumnRows, bound: float) -> float:
    """Rounds up to whole GPUs if every GPU costs the same; otherwise returns the bound itself."""
    if not rows.cost_is_count:
        return bound
    price = float(rows.r[0])
    return math.ceil(bound / price - ROUNDING) * price


def exact_bound(problem: PlacementProblem, certificate: Certificate, cuts: Cuts | None = None) -> Fraction:
    """The bound of the claim in exact arithmetic over the floating-point data of the problem and of the cuts.

    Raises:
        ValueError: if a multiplier breaks its sign or `lam <= rho v`, or shapes do not fit: then nothing is proven.
    """
    rows = column_rows(problem, cuts=cuts)
    _require_valid(problem, rows, certificate)
    stock, total = fleet_limits(problem)
    caps = class_caps(problem, certificate.class_of)
    nu = [[Fraction(x) for x in row] for row in certificate.nu.tolist()]
    sigma = [Fraction(x) for x in certificate.sigma.tolist()]
    sigma_total = Fraction(certificate.sigma_total)
    deficit = Fraction(0)
    prices: list[Fraction | None] = [None] * len(problem.items)
    psi, psi_unit = _as_integers(rows.psi)
    for o in range(len(problem.options)):
        lam = [(e, Fraction(x)) for e, x in enumerate(certificate.lam[o].tolist()) if x]
        mu = [(j, Fraction(x)) for j, x in enumerate(certificate.mu[o].tolist()) if x]
        kappa = [(c, Fraction(float(certificate.kappa[c]))) for c in np.flatnonzero(rows.cuts.option == o).tolist()]
        kept = 1 - sum((k for _, k in kappa), Fraction(0))
        if kept < 0 or any(x > kept * Fraction(v) for (e, x) in lam for v in (float(rows.v[o, e]),)):
            raise ValueError("certificate.lam exceeds the hinge weights v, less what the cuts take")
        slope = [kept * Fraction(x) for x in rows.q[o].tolist()]
        opening = kept * Fraction(rows.r[o]) + sigma[int(problem.option_type[o])] + sigma_total
        for weights, matrix, constant in ((lam, rows.W[o], rows.b[o]), (mu, rows.H[o], rows.h[o])):
            for index, weight in weights:
                opening += weight * Fraction(float(constant[index]))
                slope = [s + weight * Fraction(x) for s, x in zip(slope, matrix[index].tolist(), strict=True)]
        opening -= sum((int(u) * row[o] for u, row in zip(caps, nu, strict=True)), Fraction(0))
        opening += sum((k * Fraction(float(rows.cuts.constant[c])) for c, k in kappa), Fraction(0))
        deficit = max(deficit, -opening)
        unit = math.lcm(*(s.denominator for s in slope))
        values = psi @ np.array([int(s * unit) for s in slope], dtype=object)
        for i in np.flatnonzero(problem.allowed[:, o]).tolist():
            price = Fraction(int(values[i]), unit * psi_unit) + nu[int(certificate.class_of[i])][o]
            price += sum((k * Fraction(float(rows.cuts.slope[c, i])) for c, k in kappa if k), Fraction(0))
            best = prices[i]
            prices[i] = price if best is None or price < best else best
    if any(p is None for p in prices):
        raise ValueError("an item is not allowed under any option: no bound exists")
    return (
        sum((p for p in prices if p is not None), Fraction(0))
        - sum((int(s) * m for s, m in zip(stock, sigma, strict=True)), Fraction(0))
        - total * sigma_total
        - total * deficit
    )


def certifies(problem: PlacementProblem, certificate: Certificate, claimed: float, cuts: Cuts | None = None) -> bool:
    """Whether the certificate proves `objective >= claimed`, checked in exact arithmetic.

    Allows for rounding up to whole GPUs, and for a relative 1e-9 because the claim itself is a rounded number.
    """
    exact = exact_bound(problem, certificate, cuts)
    slack = Fraction(1e-9) * max(Fraction(1), abs(Fraction(claimed)))
    if Fraction(claimed) <= exact + slack:
        return True
    rows = column_rows(problem, cuts=cuts)
    if not rows.cost_is_count:
        return False
    price = Fraction(float(rows.r[0]))
    return Fraction(claimed) <= math.ceil(exact / price - Fraction(ROUNDING)) * price + slack


def _require_valid(problem: PlacementProblem, rows: ColumnRows, certificate: Certificate) -> None:
    classes = int(certificate.class_of.max()) + 1
    shapes = {
        "mu": (certificate.mu.shape, rows.h.shape),
        "lam": (certificate.lam.shape, rows.v.shape),
        "nu": (certificate.nu.shape, (classes, len(rows.h))),
        "sigma": (certificate.sigma.shape, problem.stock.shape),
        "class_of": (certificate.class_of.shape, (len(problem.items),)),
        "kappa": (certificate.kappa.shape, (len(rows.cuts),)),
    }
    for name, (have, want) in shapes.items():
        if have != want:
            raise ValueError(f"certificate.{name} has shape {have}, the problem needs {want}")
    for name in ("mu", "lam", "nu", "sigma", "kappa"):
        if not (getattr(certificate, name) >= 0).all():
            raise ValueError(f"certificate.{name} has a negative or undefined multiplier")
    if not certificate.sigma_total >= 0:
        raise ValueError("certificate.sigma_total is negative or undefined")


def _as_integers(values: Array) -> tuple[NDArray[Any], int]:
    """Exact integers and their common denominator, a power of two: `values == integers / unit`."""
    mantissa, exponent = np.frexp(values)
    lowest = min(int(exponent[values != 0].min()), 53) if values.any() else 0
    digits = (mantissa * 2.0**53).astype(np.int64).tolist()
    shifts = np.maximum(exponent - lowest, 0).tolist()
    rows = [[d << s for d, s in zip(ds, ss, strict=True)] for ds, ss in zip(digits, shifts, strict=True)]
    return np.array(rows, dtype=object), 1 << (53 - lowest)
