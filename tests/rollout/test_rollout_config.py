"""What `canary:` in mlcicd.yaml can ask of the judge, and how it is told what it can not."""

from __future__ import annotations

import json
import math

import pytest
import yaml

from mlcicd.config.canary import Canary
from mlcicd.core.errors import ConfigError
from mlcicd.rollout import Action, Arm, Judge, Window
from mlcicd.rollout.simulate import Stream, Traffic, windows
from mlcicd.stages.canary_ground import judge_spec
from mlcicd.stages.canary_shadow import shadow_spec
from mlcicd.stages.canary_simulation import operating_characteristics
from mlcicd.stages.canary_tools import Known, canary_settings, forecast_decisions, replay_windows


def read(text: str) -> Canary:
    return Canary.model_validate(yaml.safe_load(text))


def metrics(text: str):
    return {metric.name: metric for metric in judge_spec(read(f"metrics: [{text}]")).metrics}


def refused(tmp_path, text: str) -> str:
    path = tmp_path / "mlcicd.yaml"
    path.write_text(f"version: 1\ncanary:\n{text}")
    with pytest.raises(ConfigError) as raised:
        canary_settings(path)
    return raised.value.one_line()


# --- predictions


def test_drift_of_the_predictions_informs_and_takes_nothing_back_unless_asked():
    default = metrics("{name: scores, type: histogram}")["scores"]
    assert (default.sense, default.breach, default.margin, default.tolerance) == ("same", "inform", None, 1.0)
    assert metrics("{name: scores, type: histogram, on_breach: hold}")["scores"].breach == "hold"
    assert metrics("{name: scores, type: histogram, on_breach: rollback}")["scores"].breach == "rollback"
    stream = Stream(scores=True, score_shift=0.8, requests_per_minute=30_000)
    for breach, action in (("inform", Action.PROMOTE), ("hold", Action.HOLD), ("rollback", Action.ROLLBACK)):
        text = f"metrics: [{{name: errors}}, {{name: scores, type: histogram, on_breach: {breach}}}]"
        judge = Judge(judge_spec(read(text)))
        for window in windows(stream, 40, seed=2):
            decision = judge.update(window)
        assert decision.action is action
        assert next(m for m in decision.metrics if m.name == "scores").breached


def test_scores_may_gate_with_a_difference_of_means():
    spec = metrics("{name: scores, type: histogram, margin: 0.05}")["scores"]
    assert (spec.margin, spec.sense) == (0.05, "same")
    one_sided = metrics("{name: scores, type: histogram, direction: lower, margin: 1.5}")["scores"]
    assert (one_sided.margin, one_sided.tolerance) == (1.5, 1.25)


# --- what a breach does, and what promotion waits for


def test_what_a_breach_does_and_what_gates_is_the_users_choice():
    assert metrics("{name: errors}")["errors"].breach == "rollback"
    assert metrics("{name: errors, on_breach: hold}")["errors"].breach == "hold"
    assert metrics("{name: clicked, direction: higher, on_breach: inform}")["clicked"].breach == "inform"
    assert metrics("{name: clicked}")["clicked"].margin == 2.0
    assert metrics("{name: clicked, gates: false}")["clicked"].margin is None
    assert metrics("{name: latency, type: histogram}")["latency"].margin is None


# --- guards


def test_guards_of_rates_and_quantiles_take_a_canary_back_whatever_its_champion_does():
    text = """
    max_error_rate: 0.05
    guards: [{metric: errors, max: 0.02}, {metric: latency, quantile: 0.95, max: 150, weight: 2, on_breach: hold}]
    """
    guards = judge_spec(read(text)).guards
    assert [(g.name, g.limit, g.quantile, g.breach) for g in guards] == [
        ("error rate", 0.05, None, "rollback"),
        ("errors <= 0.02", 0.02, None, "rollback"),
        ("latency p95 <= 150", 150.0, 0.95, "hold"),
    ]
    slow = Stream(latency=True, requests_per_minute=30_000)
    spec = judge_spec(read("guards: [{metric: latency, quantile: 0.95, max: 100}]"))
    judge = Judge(spec)
    for window in windows(slow, 30, seed=1):
        decision = judge.update(window)
    assert decision.action is Action.ROLLBACK
    assert decision.reason.startswith("latency p95 <= 100: the canary is beyond its limit")
    kept = Judge(judge_spec(read("guards: [{metric: latency, quantile: 0.95, max: 150}]")))
    for window in windows(slow, 30, seed=1):
        decision = kept.update(window)
    assert decision.action is not Action.ROLLBACK


# --- slices

SLICED = "{name: errors, slices: ['country=DE', 'country=FR'], slices_weight: 0.5}, {name: clicked, direction: higher}"


def test_slices_share_a_declared_part_of_alpha():
    settings = read(f"metrics: [{SLICED}]")
    spec = judge_spec(settings)
    found = {m.name: (m.source, m.weight, m.margin, m.required) for m in spec.metrics}
    assert found == {
        "errors": ("errors", 1.0, 2.0, True),
        "errors[country=DE]": ("errors[country=DE]", 0.25, None, False),
        "errors[country=FR]": ("errors[country=FR]", 0.25, None, False),
        "clicked": ("clicked", 1.0, 2.0, True),
    }
    parts = [math.exp(-spec.log_threshold(part.weight)) for part in spec.parts]
    parts.append(math.exp(-spec.log_threshold(spec.sample_ratio_weight)))
    assert sum(parts) == pytest.approx(spec.alpha)


def sliced(i: int, de: tuple[int, int] | None, fr: tuple[int, int] | None) -> Window:
    def rates(part: int):
        counts = {"errors[country=DE]": de, "errors[country=FR]": fr}
        return {
            name: (n // part, x // part if part > 1 else x) for name, pair in counts.items() if pair for n, x in [pair]
        }

    champion = {name: (9 * n, x // 10) for name, (n, x) in rates(1).items()}
    return Window(10.0 * i, Arm(4500, 20, rates=champion), Arm(500, 2, rates=rates(1)), 0.1)


def test_harm_in_one_slice_is_found_and_a_quiet_hour_of_another_is_no_alarm():
    spec = judge_spec(read("metrics: [{name: errors, slices: ['country=DE', 'country=FR']}]"))
    judge = Judge(spec)
    for i in range(100):
        decision = judge.update(sliced(i, (100, 0), (20, 0) if i == 0 else None))
    assert decision.action is Action.PROMOTE
    judge = Judge(spec)
    for i in range(40):
        decision = judge.update(sliced(i, (100, 0), (20, 8)))
    assert decision.action is Action.ROLLBACK
    assert decision.reason.startswith("errors[country=FR]: ")


def test_a_slice_that_is_never_seen_is_never_passed():
    judge = Judge(judge_spec(read("metrics: [{name: errors, slices: ['country=DE', 'country=XX']}]")))
    spec = judge.spec
    for i in range(400):
        decision = judge.update(sliced(i, (100, 0), None))
    assert decision.action is Action.INCONCLUSIVE
    assert "nothing was counted of errors[country=XX] yet" in decision.reason
    assert spec.max_duration_s == 3600


# --- late outcomes


def test_a_late_metric_is_read_from_outcomes_and_watched():
    settings = read("{max_duration: 1d, labels: o.jsonl, metrics: [{name: missed, label_delay: 6h, slices: ['a=b']}]}")
    spec = judge_spec(settings)
    assert [m.label_delay_s for m in spec.metrics] == [21600.0, 21600.0]
    assert spec.watch_s == 21600.0
    assert judge_spec(settings.model_copy(update={"watch": "2d"})).watch_s == 172_800.0
    assert judge_spec(settings.model_copy(update={"on_undecided": "hold"})).undecided == "hold"


def test_the_forecast_and_the_simulation_say_what_late_outcomes_and_slices_are_to_them():
    text = f"{{max_duration: 12h, metrics: [{SLICED}, {{name: missed, label_delay: 30m}}]}}"
    settings = read(text)
    known = Known(60_000.0, {"errors": 0.01, "clicked": 0.3, "missed": 0.05})
    said = forecast_decisions(settings, known)
    assert any("missed: 30 of its minutes are the wait" in line for line in said.lines)
    assert any("Not forecast" in line and "errors[country=DE]" in line for line in said.lines)
    assert said.document["minutes_to_promote"] > 30
    settings = read("{max_duration: 2h, metrics: [{name: errors}, {name: missed, label_delay: 10m, slices: ['a=b']}]}")
    played = operating_characteristics(settings, known, runs=3, seed=1)
    assert played.document["scenarios"][0]["promoted"] == 1.0
    assert played.document["scenarios"][0]["minutes"][0] > 10
    assert any("missed[a=b]" in line for line in played.lines)


def test_a_replay_joins_outcomes_of_a_file_of_their_own(tmp_path):
    traffic, path = Traffic(Stream(requests_per_minute=6000), 3), tmp_path / "windows.jsonl"
    recorded = [traffic.draw(0.1) for _ in range(60)]
    path.write_text("".join(json.dumps(w.to_json()) + "\n" for w in recorded))
    labels = tmp_path / "outcomes.jsonl"
    lines = [
        {
            "t": w.t,
            "champion": {"rates": {"missed": {"n": 400, "x": 20}}},
            "canary": {"rates": {"missed": {"n": 40, "x": x}}},
        }
        for w, x in zip(recorded, [2, 6] * 30, strict=True)
    ]
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = read("{max_duration: 1d, metrics: [{name: errors}, {name: missed, label_delay: 1h}]}")
    joined = replay_windows(path, settings, labels=labels)
    assert (joined.document["decision"], joined.exit_code) == ("rollback", 1)
    assert joined.document["t"] >= 3600
    assert replay_windows(path, settings).document["decision"] == "continue"


def test_a_shadow_asks_what_the_router_counts_of_copies():
    text = f"""{{max_duration: 1d, max_error_rate: 0.1, guards: [{{metric: clicked, min: 0.1}}], metrics: [{SLICED},
    {{name: latency, type: histogram}}, {{name: scores, type: histogram}}, {{name: missed, label_delay: 6h}}]}}"""
    spec = shadow_spec(judge_spec(read(text)))
    assert [part.name for part in spec.parts] == ["errors", "latency", "error rate"]
    assert (spec.sample_ratio, spec.max_duration_s, spec.metrics[0].margin) == (False, None, None)


# --- errors


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("  metrics: [{name: scores}]", 3, "write `type: histogram`"),
        ("  metrics: [{name: kpi, type: histogram}]", 3, "`latency` and `scores`"),
        ("  metrics: [{name: errors, direction: same}]", 3, "`lower` or `higher`"),
        ("  metrics: [{name: errors, margin: 0.9}]", 3, "greater than 1"),
        ("  metrics: [{name: errors, gates: false, margin: 2}]", 3, "contradict"),
        ("  metrics: [{name: latency, type: histogram, gates: true}]", 3, "needs a margin"),
        ("  metrics: [{name: latency, type: histogram, slices: ['a=b']}]", 3, "slices and floor are for rates"),
        ("  metrics: [{name: errors, slices: ['a=b', 'a=b']}]", 3, "named twice"),
        ("  metrics: [{name: errors, slices: ['no sign']}]", 3, "slices"),
        ("  metrics: [{name: errors, label_delay: 1h}]", 3, "known at once"),
        ("  metrics: [{name: errors, label_delay: soon}]", 3, "label_delay"),
        ("  metrics: [{name: errors, on_breach: cry}]", 3, "on_breach"),
        ("  metrics: [{name: kpi, label_delay: 6h}]", 2, "raise it, or write `gates: false`"),
        ("  metrics: [{name: kpi}, {name: kpi}]", 2, "there twice: kpi"),
        ("  watch: 1h", 2, "`label_delay`"),
        ("  guards: [{metric: errors}]", 3, "either `max` or `min`"),
        ("  guards: [{metric: errors, max: 1.5}]", 3, "between 0 and 1"),
        ("  guards: [{metric: errors, max: 0.1, quantile: 0.5}]", 3, "no quantiles"),
        ("  guards: [{metric: latency, max: 300}]", 3, "needs `quantile` and `max`"),
        ("  guards: [{metric: errors, max: .nan}]", 3, "guards"),
        (
            "  max_duration: 1d\n  metrics: [{name: kpi, label_delay: 6h}]\n  guards: [{metric: kpi, max: 0.1}]",
            2,
            "can not wait for labels",
        ),
    ],
)
def test_what_can_not_be_is_told_with_its_line(tmp_path, text, line, why):
    said = refused(tmp_path, text + "\n")
    assert why in said
    assert f"mlcicd.yaml:{line}" in said
