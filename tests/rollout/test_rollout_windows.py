"""Window files, replays, simulations and forecasts."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcicd.core.errors import InputError
from mlcicd.rollout import Action, Arm, Histogram, Judge, JudgeSpec, MetricSpec, Window, read_windows
from mlcicd.rollout.forecast import Step, forecast, scaled
from mlcicd.rollout.replay import replay
from mlcicd.rollout.simulate import Stream, Traffic, simulate, windows

ERRORS = MetricSpec("errors", margin=2.0)
LATENCY = MetricSpec("latency", "histogram", "latency", margin=1.25)


def line(**changes) -> dict:
    value = {
        "t": 10.0,
        "share": 0.1,
        "champion": {"requests": 90, "errors": 1, "latency_ms": {"edges": [10, 20], "counts": [80, 9, 1]}},
        "canary": {"requests": 10, "errors": 0, "rates": {"kpi": {"n": 10, "x": 3}}},
    }
    value.update(changes)
    return value


def test_window_survives_a_round_trip():
    window = Window.from_json(line())
    assert window.canary.rates == {"kpi": (10, 3)}
    assert window.champion.latency_ms == Histogram((10.0, 20.0), (80, 9, 1))
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window
    full = next(windows(Stream(latency=True, scores=True, rates={"kpi": (0.1, 0.2)}), 1))
    assert Window.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_counts_between_the_edges_only_have_nothing_outside():
    histogram = Histogram.from_json({"edges": [1, 2, 3], "counts": [4, 5]})
    assert histogram.counts == (0, 4, 5, 0)
    assert histogram.total == 9


@pytest.mark.parametrize(
    "bad",
    [
        line(t=math.nan),
        line(t="10"),
        line(t=True),
        line(t=10**400),
        line(share=1.5),
        line(share=-0.1),
        line(share=None),
        line(extra=1),
        line(canary={"requests": -1}),
        line(canary={"requests": 1.5}),
        line(canary={"requests": math.nan}),
        line(canary={"requests": math.inf}),
        line(canary={"requests": 10, "errors": 11}),
        line(canary={"requests": 2**60}),
        line(canary={"errors": 1}),
        line(canary={"requests": 1, "latency": {}}),
        line(canary=[]),
        line(canary={"requests": 9, "rates": {"kpi": {"n": 3, "x": 4}}}),
        line(canary={"requests": 9, "rates": {"kpi": {"n": 3}}}),
        line(canary={"requests": 9, "rates": {"kpi": 3}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [10, 20], "counts": [1, 2, 3, 4]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [10, 20], "counts": [1, 2]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [20, 10], "counts": [1, 2, 3]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [10, math.inf], "counts": [1, 2, 3]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [10, 20], "counts": [1, -2, 3]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [], "counts": [1]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": 3, "counts": [1]}}),
        line(canary={"requests": 9, "latency_ms": {"edges": [10, 30], "counts": [1, 2, 3]}}),
        {"t": 1},
        [],
        None,
    ],
)
def test_anything_else_is_refused_with_the_line_it_stands_on(bad, tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_text(json.dumps(line(t=1.0)) + "\n\n" + json.dumps(bad) + "\n")
    found = read_windows(path)
    assert next(found).t == 1.0
    with pytest.raises(InputError) as caught:
        next(found)
    assert caught.value.where == f"{path}:3"


@pytest.mark.parametrize("text", ["{", "nonsense", "[" * 100_000, "\x00"])
def test_a_line_that_is_not_json_is_refused(text, tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(InputError, match="not JSON"):
        list(read_windows(path))


def test_windows_must_come_in_order_once(tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_text("".join(json.dumps(line(t=t)) + "\n" for t in (1, 2, 2)))
    with pytest.raises(InputError, match="does not come after") as caught:
        list(read_windows(path))
    assert caught.value.where.endswith(":3")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="can not read"):
        list(read_windows(tmp_path / "none.jsonl"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match="can not read"):
        list(read_windows(tmp_path / "binary"))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "t",
                    "share",
                    "champion",
                    "canary",
                    "requests",
                    "errors",
                    "latency_ms",
                    "edges",
                    "counts",
                    "rates",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_json_value_does_anything_but_parse_or_be_refused(value):
    try:
        window = Window.from_json(value)
    except InputError:
        return
    assert window.canary.errors <= window.canary.requests


def test_replay_says_what_where_and_why():
    spec = JudgeSpec(metrics=(ERRORS, LATENCY))
    stream = Stream(latency=True, canary_error_ratio=6.0)
    result = replay(spec, windows(stream, 200, seed=2))
    assert result.decision.action is Action.ROLLBACK
    assert result.at_window == result.windows == len(result.trace)
    assert result.trace[-1].log_e["errors"] >= math.log(next(m for m in result.decision.metrics).threshold)
    assert result.canary_errors > 0
    json.dumps(result.to_json(), allow_nan=False)


def test_replay_of_nothing_is_no_decision():
    with pytest.raises(InputError, match="no window"):
        replay(JudgeSpec(), [])


def test_replay_can_go_on_after_promotion_was_due():
    stream = Stream(requests_per_minute=30_000)
    first = replay(JudgeSpec(), windows(stream, 60))
    on = replay(JudgeSpec(), windows(stream, 60), stop_at_promote=False)
    assert first.decision.action is on.decision.action is Action.PROMOTE
    assert first.at_window == on.at_window < on.windows == 60


def test_replay_gives_the_judges_own_evidence():
    judge, spec = Judge(JudgeSpec()), JudgeSpec()
    recorded = list(windows(Stream(), 15, seed=3))
    for window in recorded:
        last = judge.update(window)
    assert replay(spec, recorded).decision == last


def test_streams_are_seeded_and_ramp_through_their_steps():
    stream = Stream(steps=(0.05, 0.5))
    first, again = list(windows(stream, 10, seed=1)), list(windows(stream, 10, seed=1))
    assert first == again
    assert first != list(windows(stream, 10, seed=2))
    assert [w.share for w in first] == [0.05] * 5 + [0.5] * 5


def test_drifting_and_even_streams():
    stream = Stream(champion_error=0.1, champion_error_end=0.5, drift_s=100, even=True, requests_per_minute=6000)
    assert (stream.error_rate(0), stream.error_rate(50), stream.error_rate(500)) == pytest.approx((0.1, 0.3, 0.5))
    window = Traffic(stream, 1).draw(0.25)
    assert (window.champion.requests, window.canary.requests) == (750, 250)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Stream(requests_per_minute=0),
        lambda: Stream(steps=()),
        lambda: Stream(steps=(0.0,)),
        lambda: Stream(steps=(0.9,), actual_share=1.2),
        lambda: Stream(champion_error=0.6, canary_error_ratio=2.0),
        lambda: Stream(champion_error=math.nan),
        lambda: simulate(JudgeSpec(), Stream(), runs=0),
        lambda: Step(1.0, 5),
        lambda: Step(0.1, 0),
        lambda: forecast(JudgeSpec(), requests_per_minute=0, steps=[Step(0.1, 1)], rates={}),
        lambda: forecast(JudgeSpec(), requests_per_minute=100, steps=[], rates={}),
        lambda: forecast(JudgeSpec(), requests_per_minute=100, steps=[Step(0.1, 1)], rates={"errors": 0.0}),
    ],
)
def test_senseless_simulations_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_operating_characteristics_of_good_and_bad_canaries():
    steps = (0.05, 0.1, 0.25, 0.5)
    good = simulate(JudgeSpec(), Stream(steps=steps), runs=40, seed=1)
    bad = simulate(JudgeSpec(), Stream(steps=steps, canary_error_ratio=10.0), runs=40, seed=2)
    assert good.promoted >= 0.9
    assert bad.rolled_back == 1.0
    assert bad.canary_errors[1] <= 10
    assert good == simulate(JudgeSpec(), Stream(steps=steps), runs=40, seed=1)


def test_forecast_agrees_with_simulation():
    spec = JudgeSpec(metrics=(ERRORS,))
    plan = [Step(0.1, 60)]
    asked = forecast(spec, requests_per_minute=3000, steps=plan, rates={"errors": 0.005}, effects=(3.0,))
    by_question = {f.question: f for f in asked}
    harm = simulate(spec, Stream(canary_error_ratio=3.0), runs=60, seed=1)
    good = simulate(spec, Stream(), runs=60, seed=2)
    assert by_question["harm"].canary_requests == pytest.approx(harm.canary_requests[1], rel=0.35)
    assert by_question["promote"].canary_requests == pytest.approx(good.canary_requests[1], rel=0.35)


def test_forecast_says_what_can_not_be_decided_in_time():
    spec = JudgeSpec(max_duration_s=600)
    few, many = (
        forecast(spec, requests_per_minute=rate, steps=[Step(0.1, 5), Step(0.5, 5)], rates={"errors": 0.005})
        for rate in (60, 60_000)
    )
    assert not any(f.decidable for f in few)
    assert all(f.decidable for f in many)
    assert [f.minutes for f in many if f.question == "harm"] == sorted(
        (f.minutes for f in many if f.question == "harm"), reverse=True
    )


def test_forecast_of_a_tolerated_effect_is_never():
    spec = JudgeSpec(metrics=(dataclasses.replace(ERRORS, tolerance=1.5),))
    harm = forecast(spec, requests_per_minute=3000, steps=[Step(0.1, 5)], rates={"errors": 0.01}, effects=(1.2,))[0]
    assert math.isinf(harm.minutes)
    assert not harm.decidable


def test_forecast_of_latency_shrinks_with_the_effect_and_needs_fine_bins():
    champion = next(windows(Stream(latency=True, requests_per_minute=600_000), 1)).champion.latency_ms
    spec = JudgeSpec(metrics=(LATENCY,))
    found = forecast(
        spec,
        requests_per_minute=3000,
        steps=[Step(0.1, 60)],
        rates={},
        histograms={"latency": champion},
        histogram_effects=(1.1, 1.25, 2.0),
    )
    minutes = [f.minutes for f in found if f.question == "harm"]
    assert minutes == sorted(minutes, reverse=True)
    assert math.isfinite(found[-1].minutes)
    coarse = Histogram((30.0, 100.0, 1000.0), (500, 400, 95, 5))
    blunt = forecast(spec, requests_per_minute=3000, steps=[Step(0.1, 60)], rates={}, histograms={"latency": coarse})
    assert math.isinf(blunt[-1].minutes)
    with pytest.raises(InputError, match="empty"):
        empty = {"latency": Histogram((1.0,), (0, 0))}
        forecast(spec, requests_per_minute=3000, steps=[Step(0.1, 60)], rates={}, histograms=empty)


def test_scaled_bins_keep_their_sum_and_move_up():
    edges, p = (10.0, 20.0, 40.0), [0.1, 0.4, 0.3, 0.2]
    moved = scaled(edges, p, 1.5)
    assert sum(moved) == pytest.approx(1.0)
    assert moved[0] < p[0]
    assert moved[-1] > p[-1]
    assert scaled(edges, p, 1.0) == pytest.approx(p)


def test_arms_made_by_hand_are_checked_like_those_read():
    for make in (
        lambda: Arm(-1),
        lambda: Arm(1, 2),
        lambda: Arm(1.0),
        lambda: Arm(True),
        lambda: Arm(5, rates={"kpi": (1, 2)}),
        lambda: Histogram((1.0, 1.0), (1, 2, 3)),
    ):
        with pytest.raises(InputError):
            make()
