"""The judge on windows made by hand and on seeded streams: decisions, resuming, and hostile input."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.rollout import Action, Arm, GuardSpec, Histogram, Judge, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.simulate import Stream, Traffic

EDGES = (20.0, 40.0, 60.0, 80.0, 120.0, 200.0, 400.0)
ERRORS = MetricSpec("errors", margin=2.0)
LATENCY = MetricSpec("latency", "histogram", "latency", margin=1.3)
SCORES = MetricSpec("drift", "histogram", "scores")
FULL = JudgeSpec(
    metrics=(ERRORS, LATENCY, SCORES, MetricSpec("kpi", "rate", "kpi", direction="higher", margin=1.2)),
    guards=(GuardSpec("error_rate", "errors", 0.05), GuardSpec("p95", "latency", 200.0, quantile=0.95)),
)
BUSY = Stream(latency=True, scores=True, rates={"kpi": (0.3, 0.3)})


def window(
    i: int, *, champion: tuple[int, int] = (450, 2), canary: tuple[int, int] = (50, 0), share: float = 0.1
) -> Window:
    return Window(10.0 * i, Arm(*champion), Arm(*canary), share)


def run(spec: JudgeSpec, stream: Stream, windows: int, seed: int = 1) -> list:
    judge, traffic = Judge(spec), Traffic(stream, seed)
    return [judge.update(traffic.draw(stream.steps[0])) for _ in range(windows)]


def test_equal_canary_is_promoted_and_then_stays_watched():
    spec = JudgeSpec(metrics=(ERRORS, LATENCY))
    decisions = run(spec, Stream(latency=True, requests_per_minute=30_000), 60)
    actions = [d.action for d in decisions]
    assert Action.PROMOTE in actions
    assert set(actions) == {Action.CONTINUE, Action.PROMOTE}
    assert not decisions[0].step_ready
    assert decisions[-1].step_ready
    assert all(m.promotable for m in decisions[-1].metrics if m.promotable is not None)


def test_canary_with_more_errors_is_rolled_back_for_good():
    judge, traffic = Judge(JudgeSpec()), Traffic(Stream(canary_error_ratio=5.0), 3)
    for _ in range(60):
        decision = judge.update(traffic.draw(0.1))
        if decision.action is Action.ROLLBACK:
            break
    assert decision.final
    assert decision.reason.startswith("errors: the canary differs")
    assert judge.update(Window(1e6, Arm(10_000), Arm(10_000), 0.1)).action is Action.ROLLBACK


def test_canary_that_turns_bad_after_promotion_was_due_is_still_rolled_back():
    judge, traffic = Judge(JudgeSpec(sample_ratio=False)), Traffic(Stream(requests_per_minute=30_000), 4)
    for _ in range(30):
        decision = judge.update(traffic.draw(0.1))
    assert decision.action is Action.PROMOTE
    for i in range(60):
        decision = judge.update(window(1000 + i, champion=(4500, 22), canary=(500, 50)))
    assert decision.action is Action.ROLLBACK


@pytest.mark.parametrize(
    ("spec", "stream", "name", "action"),
    [
        (LATENCY, Stream(latency=True, latency_factor=1.5), "latency", Action.ROLLBACK),
        (LATENCY, Stream(latency=True, tail_factor=3.0), "latency", Action.ROLLBACK),
        (SCORES, Stream(scores=True, score_shift=0.8), "drift", Action.HOLD),
        (
            dataclasses.replace(SCORES, critical=True),
            Stream(scores=True, score_shift=-0.8),
            "drift",
            Action.ROLLBACK,
        ),
        (
            MetricSpec("kpi", "rate", "kpi", direction="higher"),
            Stream(rates={"kpi": (0.3, 0.2)}, requests_per_minute=30_000),
            "kpi",
            Action.ROLLBACK,
        ),
    ],
)
def test_each_kind_of_harm_is_found_and_does_what_it_should(spec, stream, name, action):
    last = run(JudgeSpec(metrics=(spec,)), stream, 40)[-1]
    assert last.action is action
    assert last.reason.startswith(f"{name}: ")


def test_better_canary_is_never_harmful():
    better = Stream(
        latency=True,
        latency_factor=0.5,
        canary_error_ratio=0.2,
        rates={"kpi": (0.3, 0.5)},
        requests_per_minute=30_000,
    )
    spec = JudgeSpec(metrics=(ERRORS, LATENCY, MetricSpec("kpi", "rate", "kpi", direction="higher", margin=1.2)))
    last = run(spec, better, 60)[-1]
    assert last.action is Action.PROMOTE
    assert all(m.peak_log_e < 1.0 for m in last.metrics if m.kind == "metric")


def test_drift_that_only_informs_lets_the_rollout_go_on():
    spec = JudgeSpec(metrics=(ERRORS, dataclasses.replace(SCORES, on_breach="inform")))
    decisions = run(spec, Stream(scores=True, score_shift=0.8, requests_per_minute=30_000), 40)
    drift = next(m for m in decisions[-1].metrics if m.name == "drift")
    assert drift.breached
    assert decisions[-1].action is Action.PROMOTE


def test_drift_is_shown_with_the_confidence_sequence_of_its_size():
    last = run(JudgeSpec(metrics=(SCORES,)), Stream(scores=True, score_shift=0.8), 40)[-1]
    seen = next(m.observed for m in last.metrics if m.name == "drift")
    assert 0 < seen["difference_low"] < seen["canary"] - seen["champion"] < seen["difference_high"]
    assert seen["difference_high"] - seen["difference_low"] < 0.1


def test_scores_within_a_margin_are_promoted_and_those_beyond_are_not():
    spec = JudgeSpec(metrics=(MetricSpec("drift", "histogram", "scores", margin=0.05, on_breach="inform"),))
    near = run(spec, Stream(scores=True), 40)[-1]
    far = run(spec, Stream(scores=True, score_shift=0.6), 40)[-1]
    assert (near.action, far.action) == (Action.PROMOTE, Action.CONTINUE)


def test_acknowledged_hold_lets_the_rollout_go_on():
    judge, traffic = (
        Judge(JudgeSpec(metrics=(ERRORS, SCORES))),
        Traffic(Stream(scores=True, score_shift=1.0), 1),
    )
    for _ in range(20):
        decision = judge.update(traffic.draw(0.1))
    assert decision.action is Action.HOLD
    assert not decision.step_ready
    judge.acknowledge("drift")
    assert judge.update(traffic.draw(0.1)).action is Action.CONTINUE
    with pytest.raises(InputError, match="watches no 'nothing'"):
        judge.acknowledge("nothing")


@pytest.mark.parametrize(
    ("guard", "stream"),
    [
        (GuardSpec("limit", "errors", 0.02), Stream(champion_error=0.06)),
        (GuardSpec("limit", "latency", 80.0, quantile=0.5), Stream(latency=True, latency_factor=3.0)),
        (GuardSpec("limit", "kpi", 0.5, direction="higher"), Stream(rates={"kpi": (0.3, 0.3)})),
    ],
)
def test_guards_look_at_the_canary_alone(guard, stream):
    last = run(JudgeSpec(metrics=(), guards=(guard,)), stream, 60)[-1]
    assert last.action is Action.ROLLBACK
    assert last.reason.startswith("limit: the canary is beyond its limit")


def test_guard_that_is_kept_is_silent_and_promotes_nothing():
    last = run(JudgeSpec(metrics=(), guards=(GuardSpec("limit", "errors", 0.02),)), Stream(), 200)[-1]
    assert last.action is Action.CONTINUE
    assert "nothing that could decide for promotion" in last.reason


def test_broken_split_holds_and_a_new_share_starts_it_again():
    judge = Judge(JudgeSpec())
    for i in range(60):
        decision = judge.update(window(i, champion=(400, 2), canary=(100, 0)))
    assert decision.action is Action.HOLD
    assert "share of traffic" in decision.reason
    judge.next_step(0.2)
    decision = judge.update(window(61, champion=(400, 2), canary=(100, 0), share=0.2))
    assert decision.action is not Action.HOLD
    split = next(m for m in decision.metrics if m.name == "sample_ratio")
    assert (split.n_champion, split.n_canary) == (400, 100)
    errors = next(m for m in decision.metrics if m.name == "errors")
    assert errors.n_canary == 6100


def test_share_changed_without_notice_is_not_counted_for_the_split_in_that_window():
    judge = Judge(JudgeSpec(step_windows=2))
    for i in range(3):
        decision = judge.update(window(i))
    assert decision.step_ready
    decision = judge.update(window(4, champion=(450, 2), canary=(50, 0), share=0.5))
    split = next(m for m in decision.metrics if m.name == "sample_ratio")
    assert (split.n_champion, split.n_canary) == (0, 0)
    assert not decision.step_ready


def test_no_canary_requests_hold_and_then_roll_back():
    judge = Judge(JudgeSpec(no_data_hold_s=60, no_data_timeout_s=300, sample_ratio=False))
    judge.update(window(0))
    seen = [judge.update(window(i, canary=(0, 0))).action for i in range(1, 40)]
    assert seen[0] is Action.CONTINUE
    assert seen[6] is Action.HOLD
    assert seen[-1] is Action.ROLLBACK


def test_requests_that_come_back_end_the_hold():
    judge = Judge(JudgeSpec(no_data_hold_s=20, no_data_timeout_s=300, sample_ratio=False))
    for i in range(5):
        decision = judge.update(window(i, canary=(0, 0)))
    assert decision.action is Action.HOLD
    assert judge.update(window(5)).action is Action.CONTINUE


def test_no_windows_at_all_hold_and_then_roll_back_but_late_ones_still_count():
    judge = Judge(JudgeSpec(no_data_hold_s=60, no_data_timeout_s=300))
    judge.update(window(0))
    assert judge.idle(30.0).action is Action.CONTINUE
    assert judge.idle(100.0).action is Action.HOLD
    assert judge.update(window(1)).action is Action.CONTINUE
    assert judge.last_t == 10.0
    assert judge.idle(1000.0).action is Action.ROLLBACK
    fresh = Judge(JudgeSpec())
    fresh.idle(0.0)
    assert fresh.idle(1000.0).action is Action.ROLLBACK


def test_a_paused_canary_is_not_a_dead_one():
    judge = Judge(JudgeSpec())
    for i in range(200):
        decision = judge.update(window(i, canary=(0, 0), share=0.0))
    assert decision.action is Action.CONTINUE


def test_critical_metric_without_data_is_never_a_pass():
    judge = Judge(JudgeSpec(metrics=(ERRORS, LATENCY), no_data_hold_s=60, no_data_timeout_s=300))
    actions = [judge.update(window(i, champion=(4500, 22), canary=(500, 2))).action for i in range(40)]
    assert Action.PROMOTE not in actions
    assert Action.HOLD in actions
    assert actions[-1] is Action.ROLLBACK


def test_delayed_labels_are_not_missing_before_their_time():
    kpi = MetricSpec("kpi", "rate", "kpi", direction="higher", margin=1.2, label_delay_s=3600)
    judge = Judge(JudgeSpec(metrics=(ERRORS, kpi), no_data_hold_s=60, no_data_timeout_s=300))
    actions = [judge.update(window(i, champion=(4500, 22), canary=(500, 2))).action for i in range(100)]
    assert set(actions) == {Action.CONTINUE}


def test_undecided_when_the_time_is_over_is_inconclusive():
    judge = Judge(JudgeSpec(max_duration_s=100))
    for i in range(11):
        decision = judge.update(window(i))
    assert decision.action is Action.INCONCLUSIVE
    assert decision.final


def test_promotion_waits_for_enough_windows_and_requests():
    spec = JudgeSpec(min_windows=20, min_requests=0, sample_ratio=False)
    judge = Judge(spec)
    seen = [judge.update(window(i, champion=(45_000, 225), canary=(5_000, 25))).action for i in range(20)]
    assert seen.index(Action.PROMOTE) == 19
    judge = Judge(dataclasses.replace(spec, min_windows=0, min_requests=100_000))
    seen = [judge.update(window(i, champion=(45_000, 225), canary=(5_000, 25))).action for i in range(20)]
    assert seen.index(Action.PROMOTE) == 19


@pytest.mark.parametrize("temper", [False, True])
def test_resuming_at_every_window_changes_not_one_bit(temper):
    spec = dataclasses.replace(FULL, temper=temper)
    straight, resumed = Judge(spec), Judge(spec)
    one, two = Traffic(BUSY, 7), Traffic(BUSY, 7)
    for i in range(40):
        share = 0.1 if i < 20 else 0.3
        first = straight.update(one.draw(share))
        resumed = Judge.from_state(spec, json.loads(json.dumps(resumed.state(), allow_nan=False)))
        second = resumed.update(two.draw(share))
        assert json.dumps(first.to_json()) == json.dumps(second.to_json())
        assert json.dumps(straight.state()) == json.dumps(resumed.state())
    assert len(json.dumps(straight.state())) < 50_000


def test_final_decision_survives_resuming():
    judge, spec = Judge(JudgeSpec()), JudgeSpec()
    for i in range(5):
        judge.update(window(i, canary=(50, 25)))
    again = Judge.from_state(spec, json.loads(json.dumps(judge.state())))
    assert again.decision() == judge.decision()
    assert again.decision().action is Action.ROLLBACK


def test_changed_spec_does_not_inherit_evidence():
    state = Judge(JudgeSpec()).state()
    other = JudgeSpec(alpha=0.05)
    assert Judge.matches(JudgeSpec(), state)
    assert not Judge.matches(other, state)
    with pytest.raises(InputError, match="another canary specification"):
        Judge.from_state(other, state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("metrics"),
        lambda s: s["metrics"]["errors"]["evidence"].update(harm=[1.0]),
        lambda s: s["metrics"]["errors"]["evidence"].update(harm=["x"] * 16),
        lambda s: s["metrics"]["errors"]["evidence"].update(harm=[math.nan] * 16),
        lambda s: s.update(final=["dance", ""]),
        lambda s: s.update(split={"share": 0.1, "unknown": 1}),
        lambda s: s["metrics"].update(errors=None),
    ],
)
def test_damaged_state_is_refused(damage):
    judge = Judge(JudgeSpec())
    judge.update(window(0))
    state = json.loads(json.dumps(judge.state()))
    damage(state)
    with pytest.raises(InputError, match="damaged"):
        Judge.from_state(JudgeSpec(), state)


def histogram(counts: tuple[int, ...], edges: tuple[float, ...] = EDGES) -> Histogram:
    return Histogram(edges, counts)


@pytest.mark.parametrize(
    "bad",
    [
        Window(10.0, Arm(450), Arm(50), 0.1),
        Window(5.0, Arm(450), Arm(50), 0.1),
        Window(20.0, Arm(450, 0, histogram((1, 2), (9.0,))), Arm(50, 0, histogram((1, 2), (9.0,))), 0.1),
    ],
)
def test_window_that_can_not_be_taken_leaves_no_trace(bad):
    counts = histogram((1, 2, 3, 4, 5, 6, 7, 8))
    judge = Judge(JudgeSpec(metrics=(ERRORS, LATENCY), guards=(GuardSpec("p95", "latency", 300.0, quantile=0.95),)))
    judge.update(Window(10.0, Arm(450, 0, counts), Arm(50, 0, counts), 0.1))
    before = json.dumps(judge.state())
    with pytest.raises(InputError):
        judge.update(bad)
    assert json.dumps(judge.state()) == before


def test_guard_beyond_the_last_edge_is_refused_rather_than_passed():
    guard = GuardSpec("p95", "latency", 1000.0, quantile=0.95)
    judge = Judge(JudgeSpec(metrics=(), guards=(guard,)))
    counts = histogram((0, 0, 0, 0, 0, 0, 0, 50))
    with pytest.raises(InputError, match="last edge is 400"):
        judge.update(Window(0.0, Arm(450, 0, counts), Arm(50, 0, counts), 0.1))


counts = st.integers(0, 10**6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(counts, counts, counts, counts, st.floats(0, 1)), min_size=1, max_size=6),
    st.booleans(),
)
def test_any_counts_give_finite_evidence(rows, temper):
    judge = Judge(JudgeSpec(metrics=(dataclasses.replace(ERRORS, floor=0.001),), temper=temper))
    for i, (n_a, x_a, n_b, x_b, share) in enumerate(rows):
        decision = judge.update(Window(i, Arm(n_a, min(x_a, n_a)), Arm(n_b, min(x_b, n_b)), share))
        assert all(math.isfinite(m.log_e) and math.isfinite(m.e_value) for m in decision.metrics)
        json.dumps(decision.to_json(), allow_nan=False)
        Judge.from_state(judge.spec, json.loads(json.dumps(judge.state(), allow_nan=False)))


bins = st.lists(st.integers(0, 10**6), min_size=8, max_size=8).map(tuple)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(bins, bins), min_size=1, max_size=4), st.sampled_from(["lower", "higher", "same"]))
def test_any_histograms_give_finite_evidence(rows, sense):
    metric = MetricSpec("m", "histogram", "latency", direction=sense, tolerance=1.2, margin=1.5)
    judge = Judge(JudgeSpec(metrics=(metric,)))
    for i, (a, b) in enumerate(rows):
        arms = [Arm(sum(c), 0, histogram(c)) for c in (a, b)]
        decision = judge.update(Window(i, arms[0], arms[1], 0.5))
        assert all(math.isfinite(m.log_e) for m in decision.metrics)
        json.dumps(decision.to_json(), allow_nan=False)
        Judge.from_state(judge.spec, json.loads(json.dumps(judge.state(), allow_nan=False)))


def test_alpha_is_split_by_weight_and_adds_up():
    spec = JudgeSpec(
        metrics=(MetricSpec("errors", weight=3.0), MetricSpec("kpi", "rate", "kpi")),
        guards=(GuardSpec("limit", "errors", 0.02, weight=0.5),),
        alpha=0.02,
        sample_ratio_weight=0.5,
    )
    parts = [math.exp(-spec.log_threshold(w)) for w in (3.0, 1.0, 0.5, 0.5)]
    assert sum(parts) == pytest.approx(0.02)
    assert parts[0] == pytest.approx(0.012)


def test_whole_judge_alarms_at_most_alpha_though_it_watches_everything():
    alarms = 0
    for seed in range(150):
        judge, traffic = Judge(dataclasses.replace(FULL, alpha=0.1)), Traffic(BUSY, seed)
        for _ in range(30):
            decision = judge.update(traffic.draw(0.1))
        alarms += any(m.breached for m in decision.metrics)
    # Binomial(150, 0.1) exceeds 26 once in a thousand times.
    assert alarms <= 26


def test_tempering_weakens_the_evidence_where_the_champion_itself_bursts():
    def peak(stream: Stream, temper: bool) -> float:
        spec = JudgeSpec(metrics=(MetricSpec("errors"),), temper=temper, sample_ratio=False)
        return float(np.mean([max(d.metrics[0].log_e for d in run(spec, stream, 60, seed)) for seed in range(10)]))

    bursty = Stream(burst_cv=1.0, canary_error_ratio=1.5, requests_per_minute=30_000)
    assert peak(bursty, True) < 0.6 * peak(bursty, False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: JudgeSpec(metrics=()),
        lambda: JudgeSpec(alpha=0.0),
        lambda: JudgeSpec(alpha=math.nan),
        lambda: JudgeSpec(beta=1.0),
        lambda: JudgeSpec(metrics=(ERRORS, ERRORS)),
        lambda: JudgeSpec(metrics=(MetricSpec("sample_ratio"),)),
        lambda: JudgeSpec(no_data_hold_s=100, no_data_timeout_s=10),
        lambda: JudgeSpec(max_duration_s=0.0),
        lambda: MetricSpec(""),
        lambda: MetricSpec("m", tolerance=0.9),
        lambda: MetricSpec("m", tolerance=math.nan),
        lambda: MetricSpec("m", margin=1.0),
        lambda: MetricSpec("m", weight=0.0),
        lambda: MetricSpec("m", source="latency"),
        lambda: MetricSpec("m", "histogram", "errors"),
        lambda: MetricSpec("m", direction="same"),
        lambda: MetricSpec("m", direction="sideways"),
        lambda: MetricSpec("m", floor=1.0),
        lambda: MetricSpec("m", "histogram", "latency", levels=(1.0,)),
        lambda: MetricSpec("m", "histogram", "latency", reference=(0.0, 0.0)),
        lambda: GuardSpec("g", "errors", 1.0),
        lambda: GuardSpec("g", "latency", 300.0),
        lambda: GuardSpec("g", "errors", 0.1, quantile=0.5),
    ],
)
def test_senseless_specs_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_resuming_in_the_middle_of_a_silence_does_not_restart_its_clock():
    spec = JudgeSpec(metrics=(ERRORS, LATENCY), no_data_hold_s=60, no_data_timeout_s=300, sample_ratio=False)
    for silent in ((0, 0), (50, 0)):
        judge, straight = Judge(spec), Judge(spec)
        for i in range(35):
            judge = Judge.from_state(spec, json.loads(json.dumps(judge.state())))
            assert judge.update(window(i, canary=silent)) == straight.update(window(i, canary=silent))
        assert judge.decision().action is Action.ROLLBACK


def test_every_start_of_the_sample_ratio_spends_less_and_all_of_them_no_more_than_its_part():
    judge, spent = Judge(JudgeSpec()), 0.0
    for i in range(200):
        judge.next_step(0.1 if i % 2 else 0.2)
        split = next(m for m in judge.decision().metrics if m.name == "sample_ratio")
        spent += 1 / split.threshold
    part = math.exp(-judge.spec.log_threshold(judge.spec.sample_ratio_weight))
    assert 0.99 * part < spent <= part
