"""Out-of-fold probabilities of labels: what trees that have not seen a row say about it.

Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", Journal
of Artificial Intelligence Research 70, 2021): class j's threshold is the mean probability that the rows labelled j give
it, and a row counts for the class that is most probable among those whose threshold it reaches (their equations 2 and
1). Here a row is suspicious when that is another class than its label *and* its label has less than 15 % of what
rows with this label usually give it. The second condition is ours: without it, half of what is hard to tell would be
suspicious.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDS = 5
_LITTLE = 0.15
_TREES = 60
_LEAVES = 15
_COOLEST, _HOTTEST = 1.0, 20.0
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Suspicion:
    """What is said about each of n rows.

    Attributes:
        judged: (n,) bool; false where no trees knew the row's label, since all rows of it are in one fold.
        suspicious: (n,) bool.
        given: (n,) float, the calibrated out-of-fold probability of the row's label.
        likely: (n,) int, the class that the row is counted for; its label where it is not suspicious.
    """

    judged: NDArray[np.bool_]
    suspicious: NDArray[np.bool_]
    given: NDArray[np.float64]
    likely: NDArray[np.int64]


def out_of_fold(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    categorical: Sequence[bool],
) -> NDArray[np.float64]:
    """(n, classes) probabilities, each row's by trees that were grown on the other folds.

    Args:
        features: (n, columns); NaN is missing, categories are whole numbers below 255.
        labels: (n,) from 0 to `classes` - 1.
        folds: (n,); rows that belong together have the same.
        categorical: by column.

    Returns:
        Zeros stand for classes that the other folds do not have, and a row of zeros where they have only one. What is
        left is made less sure by one temperature, where that lowers the log loss (Guo et al., "On Calibration of
        Modern Neural Networks", ICML 2017): trees on few rows are surer than they are right.
    """
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    chances = np.zeros((len(labels), classes))
    for fold in np.unique(folds):
        test = folds == fold
        known = np.unique(labels[~test])
        if len(known) < 2:
            continue
        # Trees read a column in which some value is known.
        read = ~np.isnan(features[~test]).all(axis=0)
        if not read.any():
            continue
        trees = HistGradientBoostingClassifier(
            max_iter=_TREES,
            max_leaf_nodes=_LEAVES,
            early_stopping=False,
            random_state=0,
            categorical_features=np.asarray(categorical)[read],
        )
        # On tables of this size threads wait for each other more than they work, the more so beside other jobs.
        with threadpool_limits(limits=1):
            trees.fit(features[~test][:, read], labels[~test])
            seen = trees.predict_proba(features[test][:, read])
        # Zero is kept for what the other folds did not have.
        chances[np.ix_(test, known)] = np.maximum(seen, _SMALLEST)
    return _tempered(chances, labels)


def _tempered(chances: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))
    known = chances[rows, labels] > 0
    if not known.any():
        return chances
    logs = np.log(np.maximum(chances[known], _SMALLEST))

    def at(temperature: float, of: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = of / temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def loss(temperature: float) -> float:
        own = at(temperature, logs)[np.arange(len(logs)), labels[known]]
        return float(-np.log(np.maximum(own, _SMALLEST)).mean())

    best: Any = minimize_scalar(loss, bounds=(_COOLEST, _HOTTEST), method="bounded")
    tempered = at(float(best.x), np.log(np.maximum(chances, _SMALLEST)))
    return np.where(chances > 0, tempered, 0.0)


def suspicion(chances: NDArray[np.float64], labels: NDArray[np.int64]) -> Suspicion:
    """Holds labels against out-of-fold probabilities, as the module says.

    Args:
        chances: (n, classes), of :func:`out_of_fold`.
        labels: (n,).
    """
    import numpy as np

    given = chances[np.arange(len(labels)), labels]
    judged = given > 0
    thresholds = np.ones(chances.shape[1])
    for label in np.unique(labels[judged]):
        thresholds[label] = given[judged & (labels == label)].mean()
    reached = np.where(chances >= thresholds, chances, 0.0)
    counted = np.where(reached.any(axis=1), reached.argmax(axis=1), labels)
    suspicious = judged & (counted != labels) & (given < _LITTLE * thresholds[labels])
    return Suspicion(judged, suspicious, given, np.where(suspicious, counted, labels))
