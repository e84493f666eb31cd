"""Gates: three states, and nothing that is missing ever passes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.evaluation.gates import Gate, SliceGate, VsChampion, judge_gates, measurement, metrics_of
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.slices import SliceResult, by_values
from mlcicd.evaluation.uncertainty import Normal

PASSED, FAILED = CheckStatus.PASSED, CheckStatus.FAILED
INCONCLUSIVE, SKIPPED = CheckStatus.INCONCLUSIVE, CheckStatus.SKIPPED


def result(
    value: float, half: float, name: str = "roc_auc", direction: str = "higher", n: int = 1000, **rest: object
) -> MetricResult:
    return MetricResult(
        name, direction, n, value, (value - half, value + half),  # type: ignore[arg-type]
        uncertainty=Normal(value, half / 1.96, 1e9), **rest,  # type: ignore[arg-type]
    )  # fmt: skip


def versus(difference: float, half: float, direction: str = "higher", **rest: object) -> MetricResult:
    return result(
        0.7 + difference, 0.05, direction=direction, champion=0.7, champion_interval=(0.65, 0.75),
        difference=difference, difference_interval=(difference - half, difference + half),
        difference_uncertainty=Normal(difference, half / 1.96, 1e9), **rest,
    )  # fmt: skip


def judge(gate: Gate, *results: MetricResult, **rest: object) -> Check:
    (check,) = judge_gates([gate], results, **rest)  # type: ignore[arg-type]
    assert bool(check.reason) == (check.status is not PASSED)
    assert bool(check.remedy) == (check.status is not PASSED)
    return check


@pytest.mark.parametrize(
    ("value", "half", "bounds", "status"),
    [
        (0.75, 0.02, {"min": 0.70}, PASSED),
        (0.75, 0.05, {"min": 0.70}, PASSED),
        (0.75, 0.06, {"min": 0.70}, INCONCLUSIVE),
        (0.69, 0.06, {"min": 0.70}, FAILED),
        (0.60, 0.01, {"min": 0.70}, FAILED),
        (0.15, 0.005, {"max": 0.16}, PASSED),
        (0.15, 0.02, {"max": 0.16}, INCONCLUSIVE),
        (0.17, 0.02, {"max": 0.16}, FAILED),
        (0.50, 0.05, {"min": 0.4, "max": 0.6}, PASSED),
        (0.50, 0.15, {"min": 0.4, "max": 0.6}, INCONCLUSIVE),
        (0.65, 0.01, {"min": 0.4, "max": 0.6}, FAILED),
    ],
)
def test_absolute_gates(value: float, half: float, bounds: dict[str, float], status: CheckStatus) -> None:
    assert judge(Gate("roc_auc", **bounds), result(value, half)).status is status


@pytest.mark.parametrize(
    ("difference", "half", "vs", "status"),
    [
        (0.01, 0.005, VsChampion(), PASSED),
        (-0.001, 0.003, VsChampion(0.005), PASSED),
        (-0.001, 0.006, VsChampion(0.005), INCONCLUSIVE),
        (0.001, 0.004, VsChampion(), INCONCLUSIVE),
        (-0.02, 0.005, VsChampion(0.005), FAILED),
        (-0.006, 0.005, VsChampion(0.005), INCONCLUSIVE),
        (0.02, 0.005, VsChampion(superiority=True), PASSED),
        (0.02, 0.005, VsChampion(0.015, superiority=True), INCONCLUSIVE),
        (0.02, 0.004, VsChampion(0.015, superiority=True), PASSED),
        (0.001, 0.004, VsChampion(superiority=True), INCONCLUSIVE),
        (-0.02, 0.005, VsChampion(superiority=True), FAILED),
        (0.0, 0.0, VsChampion(superiority=True), FAILED),
    ],
)
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_gates_against_the_champion(
    difference: float, half: float, vs: VsChampion, status: CheckStatus, direction: str
) -> None:
    sign = 1 if direction == "higher" else -1
    seen = versus(sign * difference, half, direction)
    assert judge(Gate("roc_auc", vs_champion=vs), seen).status is status


@given(difference=st.floats(-1, 1), half=st.floats(1e-6, 1), margin=st.floats(0, 0.5), superiority=st.booleans())
def test_widening_an_interval_never_decides(difference: float, half: float, margin: float, superiority: bool) -> None:
    gate = Gate("roc_auc", vs_champion=VsChampion(margin, superiority))
    narrow, wide = judge(gate, versus(difference, half)), judge(gate, versus(difference, 2 * half))
    assert wide.status in (narrow.status, INCONCLUSIVE)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_fails(bad: float) -> None:
    broken = replace(result(0.7, 0.1), candidate=bad, candidate_interval=None, reason="")
    both = Gate("roc_auc", min=0.1, vs_champion=VsChampion(1.0))
    for seen in (broken, replace(versus(0.1, 0.01), candidate=bad)):
        checks = judge_gates([both], [seen], without_champion="fail")
        assert [c.status for c in checks] == [FAILED, FAILED]
    for part in ("difference", "champion"):
        seen = replace(versus(0.1, 0.01), **{part: bad})
        assert judge(Gate("roc_auc", vs_champion=VsChampion(1.0)), seen).status is FAILED
    holed = replace(versus(0.1, 0.01), difference_interval=(math.nan, math.nan))
    assert judge(Gate("roc_auc", vs_champion=VsChampion(1.0)), holed).status is FAILED
    holed = replace(result(0.7, 0.1), candidate_interval=(math.nan, math.nan))
    assert judge(Gate("roc_auc", min=0.1), holed).status is not PASSED


def test_a_missing_metric_fails() -> None:
    checks = judge_gates([Gate("brier", max=0.2, vs_champion=VsChampion())], [result(0.7, 0.1)])
    assert [c.status for c in checks] == [FAILED, FAILED]
    assert "brier was not computed" in checks[0].reason


def test_without_a_champion() -> None:
    gate = Gate("roc_auc", min=0.5, vs_champion=VsChampion())
    absolute, relative = judge_gates([gate], [result(0.7, 0.1)])
    assert (absolute.status, relative.status) == (PASSED, SKIPPED)
    assert "bootstrap" in relative.reason
    _, relative = judge_gates([gate], [result(0.7, 0.1)], without_champion="fail")
    assert relative.status is FAILED
    y = np.tile([0, 1], 50)
    flips = estimate("binary", ["negative_flip_rate"], y, Predictions(labels=y))
    assert judge(Gate("negative_flip_rate", max=0.1), *flips).status is SKIPPED
    assert judge(Gate("negative_flip_rate", max=0.1), *flips, without_champion="fail").status is FAILED


def test_a_champion_that_can_not_be_measured_fails_the_comparison() -> None:
    y = np.tile([0, 1], 50)
    scores = np.linspace(0, 1, 100)
    broken = np.where(np.arange(100) == 5, np.nan, scores)
    results = estimate("binary", ["roc_auc"], y, Predictions(scores=scores), Predictions(scores=broken))
    check = judge(Gate("roc_auc", vs_champion=VsChampion(0.5)), *results)
    assert check.status is FAILED
    assert "champion" in check.reason
    assert "not finite" in check.reason


def test_no_rows_and_one_class_fail() -> None:
    empty = Predictions(labels=np.array([]), scores=np.array([]), classes=(0, 1))
    check = judge(Gate("accuracy", min=0.0), *estimate("binary", ["accuracy"], np.array([]), empty))
    assert (check.status, "no rows" in check.reason) == (FAILED, True)
    ones = Predictions(scores=np.linspace(0, 1, 50), classes=(0, 1))
    check = judge(Gate("roc_auc", min=0.0), *estimate("binary", ["roc_auc"], np.ones(50), ones))
    assert (check.status, "single class" in check.reason) == (FAILED, True)


def test_an_identical_model_is_not_inferior_and_not_superior() -> None:
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 300), rng.random(300)
    results = estimate("binary", ["roc_auc"], y, Predictions(scores=scores), Predictions(scores=scores))
    assert judge(Gate("roc_auc", vs_champion=VsChampion()), *results).status is PASSED
    assert judge(Gate("roc_auc", vs_champion=VsChampion(superiority=True)), *results).status is FAILED


def test_rows_needed_are_about_enough() -> None:
    check = judge(Gate("roc_auc", min=0.70), result(0.72, 0.04, n=1000))
    assert check.details["rows_needed"] == pytest.approx(4000, abs=5)
    assert "3,00" in check.remedy
    check = judge(Gate("roc_auc", vs_champion=VsChampion(0.01)), versus(0.0, 0.03, n=500))
    assert check.details["rows_needed"] == pytest.approx(4500, abs=5)
    hopeless = judge(Gate("roc_auc", vs_champion=VsChampion()), versus(0.0, 0.03))
    assert "rows_needed" not in hopeless.details
    assert "no realistic number" in hopeless.reason


def test_reasons_carry_the_numbers() -> None:
    check = judge(Gate("roc_auc", min=0.70), result(0.69, 0.02))
    assert check.reason == "roc_auc is 0.69 on 1,000 rows (0.95 interval 0.67 to 0.71), and >= 0.7 is required"
    check = judge(Gate("roc_auc", vs_champion=VsChampion(0.005)), versus(-0.02, 0.01))
    assert "0.68 against the champion's 0.7, 0.02 worse" in check.reason
    assert check.reference == 0.7
    assert check.observed == pytest.approx(-0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VsChampion(-0.01),
        lambda: VsChampion(math.nan),
        lambda: Gate("roc_auc"),
        lambda: Gate("roc_auc", min=math.nan),
        lambda: Gate("roc_auc", min=0.8, max=0.7),
        lambda: SliceGate("carrier", "roc_auc"),
        lambda: SliceGate("carrier", "roc_auc", min=0.5, min_rows=0),
    ],
)
def test_gates_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_measurements_are_exact() -> None:
    assert judge(Gate("size_mb", max=20), measurement("size_mb", 19.9)).status is PASSED
    assert judge(Gate("size_mb", max=20), measurement("size_mb", 20.1)).status is FAILED
    assert judge(Gate("size_mb", max=20), measurement("size_mb", math.nan)).status is FAILED
    seen = measurement("size_mb", 19.0, champion=20.0)
    assert judge(Gate("size_mb", vs_champion=VsChampion()), seen).status is PASSED


def test_severity_is_handed_on_and_no_gates_are_ungated() -> None:
    check = judge(Gate("roc_auc", min=0.7, severity=Severity.WARN), result(0.6, 0.01))
    assert conclude([check]) is Status.UNGATED
    assert conclude(judge_gates([], [result(0.6, 0.01)])) is Status.UNGATED


def test_metrics_of_gates_are_named_once_and_checked() -> None:
    gates = [Gate("roc_auc", min=0.7), Gate("roc_auc", max=0.99)]
    assert metrics_of(gates, [SliceGate("c", "f1", min=0.1)], "binary") == ["roc_auc", "f1"]
    with pytest.raises(ConfigError, match="did you mean 'roc_auc'"):
        metrics_of([Gate("rocauc", min=0.7)], [], "binary")


# --- slices


def slices(*values: tuple[float, float], n: int = 500) -> list[SliceResult]:
    return [SliceResult("carrier", f"c{i}", n, (result(v, h, n=n),)) for i, (v, h) in enumerate(values)]


def judge_slices(gate: SliceGate, found: list[SliceResult]) -> list[Check]:
    return judge_gates([], [], slice_gates=[gate], slice_results=found)


GATE = SliceGate("carrier", "roc_auc", min=0.6, min_rows=100)


def test_a_slice_fails_only_after_holms_correction() -> None:
    # 1.96 standard errors are 0.05; 0.54 is 2.35 of them below: p = 0.009, enough alone, not among ten.
    alone = judge_slices(GATE, slices((0.54, 0.05)))
    assert [c.status for c in alone] == [FAILED]
    among = judge_slices(GATE, slices((0.54, 0.05), *[(0.7, 0.05)] * 9))
    assert [c.status for c in among] == [INCONCLUSIVE] + [PASSED] * 9
    assert "among 10 slices" in among[0].reason
    assert among[0].details["rows_needed"] > 500
    far = judge_slices(GATE, slices((0.45, 0.05), *[(0.7, 0.05)] * 9))
    assert [c.status for c in far] == [FAILED] + [PASSED] * 9
    assert far[0].details["family"] == 10
    assert far[0].slice == "carrier=c0"


def test_holm_steps_down() -> None:
    # p of about 0.0002 and 0.0145: the second passes 0.025 / 1, but not 0.025 / 2.
    steps = judge_slices(GATE, slices((0.51, 0.05), (0.5443, 0.05)))
    assert [c.status for c in steps] == [FAILED, FAILED]
    neither = judge_slices(GATE, slices((0.5443, 0.05), (0.5443, 0.05)))
    assert [c.status for c in neither] == [INCONCLUSIVE, INCONCLUSIVE]


def test_small_and_missing_slices() -> None:
    small = [*slices((0.7, 0.05)), SliceResult("carrier", "tiny", 20, ())]
    checks = judge_slices(GATE, small)
    assert [c.status for c in checks] == [PASSED, SKIPPED]
    named = replace(GATE, values=("c0", "tiny", "absent"))
    checks = judge_slices(named, small)
    assert [c.status for c in checks] == [PASSED, FAILED, FAILED]
    assert "has 20 rows, and 100" in checks[1].reason
    assert "no rows with carrier=absent" in checks[2].reason
    nothing = judge_slices(GATE, [SliceResult("carrier", "tiny", 20, ())])
    assert [c.status for c in nothing] == [FAILED]
    assert judge_slices(GATE, [])[0].status is FAILED


def test_better_overall_and_worse_for_one_carrier_fails_its_slice() -> None:
    rng = np.random.default_rng(0)
    n = 8000
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-1.5 * z))).astype(int)
    carrier = rng.choice(["AA", "DL", "UA"], n)
    champion = z + rng.normal(size=n)
    candidate = np.where(carrier == "UA", rng.normal(size=n), z + 0.3 * rng.normal(size=n))
    models = [Predictions(scores=1 / (1 + np.exp(-s))) for s in (candidate, champion)]
    gate = SliceGate("carrier", "roc_auc", vs_champion=VsChampion(0.01), min_rows=500)
    found = by_values("binary", ["roc_auc"], y, *models, by="carrier", column=carrier)
    statuses = {c.slice: c.status for c in judge_slices(gate, found)}
    assert statuses == {"carrier=AA": PASSED, "carrier=DL": PASSED, "carrier=UA": FAILED}


def test_shuffled_labels_fail_and_noise_does_not_pass_superiority() -> None:
    rng = np.random.default_rng(1)
    n = 5000
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    champion = Predictions(scores=1 / (1 + np.exp(-z)))
    gates = [
        Gate("roc_auc", min=0.65, vs_champion=VsChampion(0.005)),
        Gate("log_loss", vs_champion=VsChampion()),
    ]
    shuffled = Predictions(scores=rng.permutation(np.asarray(champion.scores)))
    checks = judge_gates(gates, estimate("binary", ["roc_auc", "log_loss"], y, shuffled, champion))
    assert [c.status for c in checks] == [FAILED, FAILED, FAILED]
    noisy = Predictions(scores=1 / (1 + np.exp(-(z + 0.1 * rng.normal(size=n)))))
    gate = Gate("roc_auc", vs_champion=VsChampion(superiority=True))
    assert judge(gate, *estimate("binary", ["roc_auc"], y, noisy, champion)).status is not PASSED
