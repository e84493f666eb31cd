"""The sequential tests: how much one window's counts speak against a null hypothesis.

Each function returns the logarithm of factors whose expectation, given everything seen before the window, is
at most 1 under its null. Their running product starts at 1 and is an e-process: by Ville's inequality (Ville
1939) it reaches 1/alpha with probability at most alpha, however often and whenever somebody looks. A weighted
mean of e-processes is
one too, which is how the unknown size of an effect is dealt with: a grid of alternatives, mixed (Wald 1945;
Robbins 1970).

All arrays are float64. Counts broadcast over leading axes; the grid of alternatives is the last axis.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]


def grid(low: float, high: float, size: int) -> Array:
    """`size` numbers from `low` to `high`, equally spaced in the logarithm."""
    return np.exp(np.linspace(math.log(low), math.log(high), size))


def log_mixture(log_products: Array, log_weights: Array) -> Array:
    """log sum_k w_k exp(l_k) over the last axis, without overflow."""
    terms = log_products + log_weights
    peak = np.max(terms, axis=-1, keepdims=True)
    return np.asarray(np.squeeze(peak, -1) + np.log(np.sum(np.exp(terms - peak), axis=-1)))


def rate_log_factors(
    x_a: ArrayLike, n_a: ArrayLike, x_b: ArrayLike, n_b: ArrayLike, ratio: float, thetas: Array
) -> Array:
    """Two rates, one window: log of (q(theta)/q(1))^x_b ((1-q(theta))/(1-q(1)))^x_a for each theta.

    q(theta) = theta r n_b / (theta r n_b + n_a) is the chance that an event is arm b's if p_b = theta r p_a.
    With theta > 1 the null is p_b <= r p_a; with theta < 1 it is p_b >= r p_a. Conditional expectation at
    most 1 for independent Bernoulli or Poisson events, with rates and traffic that change from window to
    window:
    E <= exp(p_a (r n_b + n_a) (q(1) L_1 + (1 - q(1)) L_0 - 1)) = exp(0), L_1 and L_0 the two ratios above.

    Lindon & Malek 2020 (events as a sequence of arm labels); Lindon, Sanden & Shirikian 2022.

    Args:
        x_a, n_a, x_b, n_b: events and trials of arm a and arm b, any shape S.
        ratio: r > 0.
        thetas: shape (K,), positive.

    Returns:
        Shape S + (K,). A window in which either arm had no trials gives 0.
    """
    x_a, n_a, x_b, n_b = (np.asarray(v, dtype=np.float64)[..., None] for v in (x_a, n_a, x_b, n_b))
    base = ratio * n_b + n_a
    scaled = thetas * ratio * n_b + n_a
    both = (n_a > 0) & (n_b > 0)
    log_ratio = np.log(np.where(both, scaled, 1.0) / np.where(both, base, 1.0))
    return np.where(both, x_b * np.log(thetas) - (x_a + x_b) * log_ratio, 0.0)


def bernoulli_log_factors(x: ArrayLike, n: ArrayLike, limit: float, alternatives: Array) -> Array:
    """One rate against a fixed limit: log of (p1/p0)^x ((1-p1)/(1-p0))^(n-x) for each alternative p1.

    With p1 > p0 the null is p <= p0, with p1 < p0 it is p >= p0: the expectation is linear in p for each
    trial, 1 at p0 and smaller on the null's side (Wald 1945).

    Args:
        x, n: events and trials, any shape S.
        limit: p0, strictly between 0 and 1.
        alternatives: p1, shape (K,), strictly between 0 and 1.
    """
    x, n = (np.asarray(v, dtype=np.float64)[..., None] for v in (x, n))
    return x * np.log(alternatives / limit) + (n - x) * np.log((1.0 - alternatives) / (1.0 - limit))


def distribution_log_factors(x_a: Array, x_b: Array, log_tilts: Array) -> Array:
    """Two histograms, one window: log of prod_j (1/d_j)^x_a[j] (t_j/d_j)^x_b[j], d_j = (n_a + n_b t_j)/n, per
    tilt t.

    With t_j = p_b[j]/p_a[j] this is the likelihood ratio of p_a, p_b against their pool p. Since
    n_a/d_j + n_b t_j/d_j = n in every bin, the inequality of arithmetic and geometric means bounds the
    expectation by 1 whenever both arms share one distribution, whatever it is and whatever t is, so long as t
    was fixed before the window. If t does not fall from bin to bin, the same holds for any canary
    stochastically smaller than the champion (t_j/d_j does not fall either), so that the test is one-sided.

    Args:
        x_a, x_b: counts by bin, shape (J,).
        log_tilts: log t, shape (K, J).

    Returns:
        Shape (K,). Zeros when either arm is empty.
    """
    n_a, n_b = float(x_a.sum()), float(x_b.sum())
    if n_a == 0 or n_b == 0:
        return np.zeros(len(log_tilts))
    log_d = np.logaddexp(math.log(n_a / (n_a + n_b)), math.log(n_b / (n_a + n_b)) + log_tilts)
    return np.asarray(log_tilts @ x_b - log_d @ (x_a + x_b))


def location_tilts(scores: Array, probabilities: Array, shifts: Array) -> Array:
    """log of exponential tilts: t_j = exp(lambda h_j) / sum_j p_j exp(lambda h_j).

    Args:
        scores: h, shape (J,).
        probabilities: p, shape (J,), positive, sum 1: what the champion's next window is expected to look
            like.
        shifts: lambda, shape (K,).

    Returns:
        Shape (K, J).
    """
    tilted = shifts[:, None] * scores
    return np.asarray(tilted - log_mixture(tilted, np.log(probabilities))[:, None])


def normal_scores(probabilities: Array) -> Array:
    """The standard normal's mean over each bin, for bins of these probabilities in this order.

    With them an exponential tilt by lambda is what a shift by lambda standard deviations does to a normal
    variable, and to any increasing function of one (a log-normal latency, a logistic score), on any bins.

    Args:
        probabilities: shape (J,), positive, sum 1.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(probabilities)])
    density = np.array([_density_at(p) for p in (cumulative / cumulative[-1]).tolist()])
    return np.asarray((density[:-1] - density[1:]) / probabilities)


def _density_at(probability: float) -> float:
    """The standard normal density at its quantile; 0 at both ends."""
    if not 0.0 < probability < 1.0:
        return 0.0
    z = _normal_quantile(probability)
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


# How sure the alternative is that a broken split is near the configured one: pseudo-requests of the Dirichlet
# prior.
SAMPLE_RATIO_CONCENTRATIONS = (100.0, 400.0, 1600.0)


def sample_ratio_log_e(n_a: int, n_b: int, share: float) -> float:
    """Is the split what was configured? log Bayes factor of Dirichlet-multinomial alternatives to it.

    Under the null each request goes to the canary with probability `share`; the alternatives are
    Dirichlet(k (1 - share), k share), mixed over k. Lindon & Malek 2020, equation for the multinomial.

    Args:
        n_a, n_b: requests of champion and canary since the share was last changed.
        share: strictly between 0 and 1.
    """
    null = n_a * math.log1p(-share) + n_b * math.log(share)
    logs = np.array([_log_beta_ratio(n_a, n_b, k * (1 - share), k * share) for k in SAMPLE_RATIO_CONCENTRATIONS])
    return float(log_mixture(logs - null, np.full(len(logs), -math.log(len(logs)))))


def _log_beta_ratio(n_a: int, n_b: int, a: float, b: float) -> float:
    """log of B(a + n_a, b + n_b) / B(a, b)."""
    gain = math.lgamma(a + n_a) - math.lgamma(a) + math.lgamma(b + n_b) - math.lgamma(b)
    return gain - (math.lgamma(a + b + n_a + n_b) - math.lgamma(a + b))


def mean_log_e(deviation: float, variance: float, rho_squared: float) -> float:
    """log e-value of a sum of centred differences, mixed over normal alternatives: asymptotic, two-sided.

    exp(rho^2 S^2 / (2 (1 + rho^2 V))) / sqrt(1 + rho^2 V), S the weighted sum of mean differences less what
    the null says, V its estimated variance (Robbins 1970; Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024,
    asymptotic confidence sequences). Valid as counts grow; the caller keeps it out of the first few dozen
    observations.
    """
    if variance <= 0:
        return 0.0
    scale = 1.0 + rho_squared * variance
    return rho_squared * deviation**2 / (2 * scale) - 0.5 * math.log(scale)


def mean_interval(
    total: float, weight: float, variance: float, rho_squared: float, alpha: float
) -> tuple[float, float]:
    """The confidence sequence that belongs to :func:`mean_log_e`: all mean differences it has not rejected at
    alpha.

    Args:
        total: weighted sum of mean differences.
        weight: sum of the weights.
        variance: estimated variance of `total`.
        rho_squared: as in :func:`mean_log_e`.
        alpha: error probability, in (0, 1).
    """
    if weight <= 0 or variance <= 0:
        return -math.inf, math.inf
    scale = 1.0 + rho_squared * variance
    radius = math.sqrt(2 * scale / rho_squared * (math.log(1 / alpha) + 0.5 * math.log(scale)))
    return (total - radius) / weight, (total + radius) / weight
