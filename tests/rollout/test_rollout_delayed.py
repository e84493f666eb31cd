"""Outcomes that come late: counted by the time of the prediction, whole, once, and still after the promotion."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_world import World, cohorts, late_plan

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.rollout import Action, Arm, Judge, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.forecast import Step, forecast
from mlcicd.rollout.labels import Cohort, is_cohort, promotion_line, read_cohorts, read_promotion
from mlcicd.rollout.replay import replay
from mlcicd.rollout.simulate import Stream, simulate
from mlcicd.rollout.sources.file import read_file
from mlcicd.rollout.spec import GuardSpec
from mlcicd.rollout.state import Phase
from mlcicd.rollout.watch import WatchEvidence, worst_rate

EXACT = 1.0 + 1e-9
LATE = MetricSpec("missed", "rate", "missed", margin=2.0, label_delay_s=600.0)
SPEC = JudgeSpec(metrics=(MetricSpec("errors", margin=2.0, floor=0.01), LATE), watch_s=300.0)


def window(i: int, **changes: object) -> Window:
    values = {"t": 10.0 * i, "champion": Arm(900, 4), "canary": Arm(100, 0), "share": 0.1}
    return Window(**{**values, **changes})


def cohort(i: int, x_a: int = 20, x_b: int = 2, n_a: int = 400, n_b: int = 40) -> Cohort:
    return Cohort(10.0 * i, 10.0, {"missed": (n_a, x_a)}, {"missed": (n_b, x_b)})


def evidence(judge: Judge, name: str = "missed"):
    return next(item for item in judge.decision().metrics if item.name == name)


# --- maturity


def test_a_cohort_counts_when_it_has_matured_whole_and_once():
    judge = Judge(SPEC)
    for i in range(3):
        # What a window itself says of an outcome that comes late is not counted as it comes.
        judge.update(window(i, canary=Arm(100, 0, rates={"missed": (40, 40)})))
    known = [cohort(0, x_b=1), cohort(1, x_b=2), cohort(2, x_b=3)]
    assert judge.mature(known, 609.9) == ()
    assert evidence(judge).n_canary == 0
    assert [c.t for c in judge.mature(known, 620.0)] == [0.0, 10.0]
    assert judge.mature(known, 625.0) == ()
    # Counts that change after their cohort was judged change nothing.
    judge.mature([cohort(0, x_b=40), *known[1:]], 700.0)
    assert (evidence(judge).n_canary, evidence(judge).observed["canary"]) == (120, 6 / 120)


def test_what_comes_after_a_later_one_was_counted_or_overlaps_it_does_not_count():
    judge = Judge(SPEC)
    judge.update(window(0))
    judge.mature([cohort(0), cohort(2)], 5000.0)
    assert judge.mature([cohort(0), cohort(1), cohort(2), cohort(3)], 5000.0) == (cohort(3),)
    overlapping = Cohort(35.0, 600.0, {"missed": (400, 20)}, {"missed": (40, 2)})
    assert judge.mature([overlapping], 9000.0) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), min_size=4, max_size=8), st.integers(0, 3))
def test_when_one_looks_and_how_often_changes_nothing(counts, skip):
    known = [cohort(i, x_a, x_b) for i, (x_a, x_b) in enumerate(counts)]
    often, once = Judge(SPEC), Judge(SPEC)
    for judge in (often, once):
        for i in range(3):
            judge.update(window(i))
    for now in range(600, 700, 10 * (skip + 1)):
        often.mature(known, now)
    often.mature(known, 5000.0)
    once.mature(known, 5000.0)
    assert json.dumps(often.state()) == json.dumps(once.state())


def test_resuming_at_every_cohort_changes_not_one_bit():
    straight, resumed = Judge(SPEC), Judge(SPEC)
    draw = np.random.default_rng(3)
    known = [cohort(i, int(draw.binomial(400, 0.05)), int(draw.binomial(40, 0.06))) for i in range(100)]
    for i in range(120):
        resumed = Judge.from_state(SPEC, json.loads(json.dumps(resumed.state(), allow_nan=False)))
        for judge in (straight, resumed):
            if i < 5:
                judge.update(window(i))
            if i == 30:
                judge.promoted(300.0)
            judge.mature(known, 10.0 * i + 600)
        assert json.dumps(straight.state()) == json.dumps(resumed.state())
        assert straight.decision() == resumed.decision()
    assert evidence(straight, "missed after promotion").n_canary == 30 * 40
    damaged = json.loads(json.dumps(straight.state()))
    damaged["late"]["missed"]["watch"]["harm"][0] = math.nan
    with pytest.raises(InputError, match="damaged"):
        Judge.from_state(SPEC, damaged)


# --- what the decision waits for


def test_promotion_waits_for_the_outcomes_and_they_can_stop_it():
    judge = Judge(SPEC)
    for i in range(100):
        decision = judge.update(window(i))
    assert decision.action is Action.CONTINUE
    assert "missed" in decision.reason
    judge.mature([cohort(i) for i in range(100)], 1600.0)
    assert judge.decision().action is Action.PROMOTE
    worse = Judge(SPEC)
    for i in range(100):
        worse.update(window(i))
    worse.mature([cohort(i, x_b=8) for i in range(30)], 1600.0)
    assert worse.decision().action is Action.ROLLBACK
    assert worse.decision().reason.startswith("missed: ")


def test_outcomes_that_do_not_come_hold_and_then_leave_it_undecided():
    spec = JudgeSpec(metrics=SPEC.metrics, max_duration_s=3000.0)
    judge = Judge(spec)
    actions = [judge.update(window(i)).action for i in range(301)]
    assert Action.PROMOTE not in actions
    assert Action.ROLLBACK not in actions
    assert actions[119] is Action.CONTINUE
    assert actions[121] is Action.HOLD
    assert actions[-1] is Action.INCONCLUSIVE
    patient = Judge(JudgeSpec(metrics=SPEC.metrics, max_duration_s=3000.0, undecided="hold"))
    for i in range(301):
        decision = patient.update(window(i))
    assert (decision.action, decision.final) == (Action.HOLD, False)
    patient.mature([cohort(i) for i in range(100)], 3100.0)
    assert patient.decision().action is Action.PROMOTE


# --- after the promotion


def promoted_judge(reference: int = 60) -> Judge:
    judge = Judge(SPEC)
    for i in range(reference):
        judge.update(window(i))
    judge.promoted(10.0 * reference)
    return judge


def test_outcomes_of_before_the_promotion_that_come_after_it_take_it_back():
    judge = promoted_judge()
    judge.mature([cohort(i, x_b=8) for i in range(60)], 1300.0)
    assert judge.decision().action is Action.ROLLBACK
    assert evidence(judge, "missed after promotion").n_canary == 0


def test_the_new_champion_is_compared_with_what_the_old_one_was():
    before, same = [cohort(i) for i in range(60)], [cohort(i, x_a=400) for i in range(60, 90)]
    judge = promoted_judge()
    judge.mature([*before, *same], 3000.0)
    assert judge.decision().action is Action.CONTINUE
    seen = evidence(judge, "missed after promotion")
    # The old champion's counts of after the promotion, if somebody gives them, are not looked at.
    assert (seen.n_champion, seen.n_canary, seen.observed["champion"]) == (24_000, 1200, 0.05)
    assert 0.05 < seen.observed["limit"] < 0.06
    worse = promoted_judge()
    worse.mature([*before, *(cohort(i, x_b=8) for i in range(60, 90))], 3000.0)
    assert worse.decision().action is Action.ROLLBACK
    assert worse.decision().reason.startswith("missed after promotion: ")


def test_what_straddles_the_promotion_or_comes_long_after_it_does_not_count():
    judge = promoted_judge()
    straddling = Cohort(595.0, 10.0, {"missed": (400, 20)}, {"missed": (40, 40)})
    late = [cohort(i, x_b=40) for i in range(90, 200)]
    assert judge.mature([straddling, *late], 9999.0) == ()
    assert judge.watch_ends == 600.0 + 300.0 + 600.0


def test_nothing_else_is_judged_after_the_promotion():
    judge = Judge(SPEC)
    judge.update(window(0))
    judge.promoted(10.0)
    assert judge.idle(1e6).action is Action.CONTINUE


# --- the statistics of the watch


def binomial(n: int, p: float) -> np.ndarray:
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


@pytest.mark.parametrize("p", [0.01, 0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("higher", [False, True])
def test_the_reference_ever_misses_the_true_rate_with_its_part_of_alpha_at_most(p, higher):
    """Exactly: the chance that at any of 60 looks, one request apart, the worst rate is not as bad as the true one."""
    alpha, alive = 0.1, {0: 1.0}
    for n in range(1, 61):
        after: dict[int, float] = {}
        for x, chance in alive.items():
            for event, part in ((1, p), (0, 1 - p)):
                after[x + event] = after.get(x + event, 0.0) + chance * part
        worst = {x: worst_rate(x, n, math.log(1 / alpha), higher=higher) for x in after}
        alive = {x: chance for x, chance in after.items() if (worst[x] <= p if higher else worst[x] >= p)}
    assert 1 - sum(alive.values()) <= alpha


@pytest.mark.parametrize("sense", ["lower", "higher"])
def test_the_watch_is_worth_at_most_one_when_nothing_is_worse(sense):
    for x_a, p in itertools.product((0, 3, 10), (0.05, 0.3, 0.8)):
        spec = MetricSpec("m", "rate", "m", direction=sense, label_delay_s=1.0)
        watch = WatchEvidence(spec, math.log(20))
        watch.begin(x_a, 10)
        if math.isnan(watch.limit):
            continue
        rate = min(p, watch.limit) if sense == "lower" else max(p, watch.limit)
        worth = 0.0
        for (x, chance), (y, other) in itertools.product(enumerate(binomial(6, rate)), enumerate(binomial(4, rate))):
            again = WatchEvidence(spec, math.log(20))
            again.begin(x_a, 10)
            again.update(x, 6)
            again.update(y, 4)
            worth += chance * other * math.exp(again.log_harm)
        assert worth <= EXACT


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 29))
def test_more_events_never_lower_the_watch_and_grouping_changes_nothing(x, y, less):
    def watched(*counts: tuple[int, int]) -> float:
        evidence = WatchEvidence(LATE, math.log(100))
        evidence.begin(20, 400)
        for pair in counts:
            evidence.update(*pair)
        return evidence.log_harm

    assert watched((x, 30), (y, 30)) == pytest.approx(watched((x + y, 60)), abs=1e-9)
    assert watched((min(x, less), 30)) <= watched((x, 30)) + 1e-12


def test_without_a_reference_nothing_can_be_told_and_nothing_is():
    assert worst_rate(0, 0, 5.0) == 1.0
    watch = WatchEvidence(LATE, 5.0)
    watch.begin(0, 0)
    watch.update(40, 40)
    assert watch.log_harm == pytest.approx(0.0, abs=1e-12)
    again = WatchEvidence(LATE, 5.0)
    again.load(json.loads(json.dumps(watch.state(), allow_nan=False)))
    assert json.dumps(again.state()) == json.dumps(watch.state())


def test_equal_canaries_are_taken_back_with_alpha_at_most_by_both_tests_together():
    spec = JudgeSpec(metrics=(LATE,), alpha=0.1, sample_ratio=False, watch_s=1e6)
    draw, false = np.random.default_rng(11), 0
    for _ in range(200):
        judge = Judge(spec)
        judge.update(window(0))
        judge.promoted(300.0)
        known = [cohort(i, int(draw.binomial(400, 0.05)), int(draw.binomial(40, 0.05))) for i in range(100)]
        judge.mature(known, 1e6)
        false += judge.decision().action is Action.ROLLBACK
    assert false <= 0.1 * 200


# --- the rollout


@pytest.mark.parametrize(
    ("worse_from", "outcome", "live", "why"),
    [
        (math.inf, "promote", "2", "every metric"),
        (1000.0, "rollback", "1", "missed: "),
        (1100.0, "rollback", "1", "missed: "),
        (1140.0, "rollback", "1", "missed after promotion: "),
    ],
)
def test_a_rollout_waits_watches_and_takes_back(tmp_path, worse_from, outcome, live, why):
    world = World(tmp_path, worse_from=worse_from)
    state = world.run().state
    assert (state.outcome, state.phase, world.target.disk.read()["live"]) == (outcome, Phase.DONE, live)
    assert state.reason.startswith(why)
    assert (state.promoted is None) == (worse_from == 1000.0)
    ledger = world.ledger.disk.read()
    if outcome == "promote":
        assert ledger == {"champion": "2"}
        assert "1200 outcomes" in state.events[-1].what
    elif state.promoted:
        assert ledger == {"champion": "1", "withdrawn": "2"}
    assert len(json.dumps(state.to_json())) < 50_000


def test_a_job_that_was_away_backfills_what_matured_meanwhile(tmp_path):
    results = []
    for pauses in ((10.0,), (70.0, 10.0, 130.0)):
        folder = tmp_path / str(len(pauses))
        folder.mkdir()
        world = World(folder, worse_from=1140.0, spec=late_plan()["spec"], max_unattended_s=1e6)
        controller = world.controller()
        controller.start()
        while controller.step().state.phase is not Phase.WATCHING:
            world.clock.pass_()
        for i in itertools.count():
            if controller.step().state.phase is Phase.DONE:
                break
            world.clock.pass_(pauses[i % len(pauses)])
        counted = [item for item in world.journal if isinstance(item, Cohort)]
        assert len({c.t for c in counted}) == len(counted)
        results.append((world.state().outcome, world.target.disk.read()["live"]))
    assert results == [("rollback", "1")] * 2


def test_a_person_may_end_the_watch_either_way(tmp_path):
    for mode, expected in (("promote", ("promote", "2")), ("abort", ("rollback", "1"))):
        folder = tmp_path / mode
        folder.mkdir()
        world = World(folder, worse_from=math.inf)
        controller = world.controller()
        controller.start()
        while controller.step().state.phase is not Phase.WATCHING:
            world.clock.pass_()
        outcome = getattr(controller, mode)("seen enough")
        assert outcome.state.phase is Phase.DONE
        assert (outcome.state.outcome, world.target.disk.read()["live"]) == expected


def test_another_command_or_another_configuration_ends_the_watch(tmp_path):
    for name in ("rolled back", "changed"):
        folder = tmp_path / name
        folder.mkdir()
        world = World(folder, worse_from=math.inf)
        controller = world.controller()
        controller.start()
        while controller.step().state.phase is not Phase.WATCHING:
            world.clock.pass_()
        if name == "rolled back":
            world.target.revert()
        else:
            controller = world.controller(spec=JudgeSpec(metrics=(LATE,), alpha=0.2))
        outcome = controller.step()
        assert outcome.state.phase is Phase.DONE
        assert any("not watched on" in note for note in outcome.notes)


# --- the file


def test_lines_of_outcomes_and_of_windows_share_a_file_and_the_last_of_a_time_counts(tmp_path):
    path = tmp_path / "windows.jsonl"
    of_window = window(0, canary=Arm(100, 0, rates={"missed": (10, 9), "clicked": (10, 1)}))
    lines = [
        json.dumps(of_window.to_json()),
        json.dumps({"t": 0, "canary": {"rates": {"missed": {"n": 40, "x": 1}}}}),
        json.dumps({"t": 0, "canary": {"rates": {"missed": {"n": 40, "x": 2}}}}),
        json.dumps({"t": 3600, "seconds": 60, "champion": {"rates": {"missed": {"n": 9, "x": 0}}}}),
    ]
    path.write_text("\n".join(lines) + '\n{"t": 99')
    first, second = read_cohorts(path, 10.0, growing=True)
    assert (first.t, first.end, first.canary) == (0.0, 10.0, {"missed": (40, 2), "clicked": (10, 1)})
    assert (second.end, second.names) == (3660.0, {"missed"})
    assert Cohort.from_json(second.to_json(), 1.0) == second
    with pytest.raises(InputError, match=r"windows\.jsonl:5"):
        read_cohorts(path, 10.0)


@pytest.mark.parametrize(
    "line",
    [
        '{"t": 0, "canary": {"rates": {"m": {"n": 1, "x": 2}}}}',
        '{"t": NaN, "canary": {"rates": {"m": {"n": 1, "x": 0}}}}',
        '{"t": 0, "seconds": 0, "canary": {"rates": {}}}',
        '{"t": 0, "canary": {"rates": {"m": {"n": -1, "x": 0}}}}',
        '{"t": 0, "canary": {"rates": {"m": {"n": 1.5, "x": 0}}}}',
        '{"canary": {"rates": {"m": {"n": 1, "x": 0}}}}',
        '{"t": 0, "canary": {"rates": {}}, "typo": 1}',
        '{"t": "0", "canary": {"rates": {}}}',
        "[]",
        "null",
        "{",
        "[" * 5000,
    ],
)
def test_a_line_that_is_no_outcome_is_refused_with_its_place(tmp_path, line):
    path = tmp_path / "outcomes.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"outcomes\.jsonl:1"):
        read_cohorts(path, 10.0)


def test_a_window_without_its_share_is_no_cohort():
    assert not is_cohort({"t": 0, "champion": {"requests": 1}, "canary": {"requests": 1}})
    assert not is_cohort({"t": 0})
    assert not is_cohort(3)


# --- replay, simulation, forecast


def test_a_replay_counts_outcomes_when_they_mature_and_watches_after_the_promotion():
    windows = [window(i) for i in range(100)]
    good = [cohort(i) for i in range(100)]
    result = replay(SPEC, windows, cohorts=good)
    assert result.decision.action is Action.PROMOTE
    assert result.at_t + 10 > 600
    assert replay(SPEC, windows).decision.action is Action.CONTINUE
    turned = [cohort(i, x_b=2 if 10 * i < result.at_t + 10 else 9) for i in range(200)]
    again = replay(SPEC, windows, cohorts=turned)
    assert again.decision.action is Action.ROLLBACK
    assert "after promotion" in again.decision.reason
    assert again.at_t > result.at_t


@pytest.mark.parametrize("worse_from", [1140.0, 1160.0, 1190.0, math.inf])
@pytest.mark.parametrize("pause", [10.0, 30.0, 50.0])
def test_a_replay_repeats_what_a_rollout_decided_however_seldom_it_looked(tmp_path, worse_from, pause):
    world = World(tmp_path, worse_from=worse_from, max_unattended_s=1e6)
    controller = world.controller()
    controller.start()
    while (outcome := controller.step()).state.phase is not Phase.DONE:
        world.clock.pass_(pause)
    windows = [item for item in world.journal if isinstance(item, Window)]
    counted = [item for item in world.journal if isinstance(item, Cohort)]
    spec, last = late_plan()["spec"], outcome.state.share_at(windows[-1].t)
    again = replay(spec, windows, cohorts=counted, window_s=10.0, last_share=last, promoted_at=world.promoted).decision
    assert again.action == outcome.state.outcome
    assert (world.promoted is None) == (outcome.state.promoted is None)
    # A replay looks whenever something closes or matures, so it may alarm on less than a rollout that seldom looked; on
    # as much it finds the same to the last bit.
    if again.action is Action.ROLLBACK and pause == 10.0:
        assert _late_evidence(again) == _late_evidence(outcome.decision)


def _late_evidence(decision):
    return {item.name: (item.log_e, item.n_canary) for item in decision.metrics if item.name.startswith("missed")}


def test_what_both_versions_answered_until_the_promotion_does_not_dilute_the_watch():
    windows, good = [window(i) for i in range(100)], [cohort(i) for i in range(100)]
    soon = replay(SPEC, windows, cohorts=good).at_t + 10
    promoted = soon + 250
    for bad in range(1, 10):
        turned = [cohort(i, x_b=2 if 10 * i < promoted else 9) for i in range(int(promoted / 10) + bad)]
        known = replay(SPEC, windows, cohorts=turned, promoted_at=promoted).decision
        if known.action is Action.ROLLBACK:
            break
    assert "after promotion" in known.reason
    assert evidence_of(known, "missed after promotion").n_canary == 40 * bad
    # Nothing in the windows tells that the promotion took so long.
    guessed = replay(SPEC, windows, cohorts=turned).decision
    assert guessed.action is Action.PROMOTE


def evidence_of(decision, name):
    return next(item for item in decision.metrics if item.name == name)


def test_where_the_canary_was_promoted_but_would_not_be_nobody_is_compared_with_the_past():
    windows = [window(i) for i in range(30)]
    known = [cohort(i) for i in range(30)] + [cohort(i, x_b=40) for i in range(30, 90)]
    strict = JudgeSpec(metrics=(MetricSpec("errors", margin=2.0, floor=0.01), LATE), min_windows=1000, watch_s=300.0)
    assert replay(strict, windows, cohorts=known).decision.action is Action.ROLLBACK
    result = replay(strict, windows, cohorts=known, promoted_at=300.0)
    assert result.decision.action is Action.CONTINUE
    assert result.windows == 30


def test_a_line_that_says_when_the_canary_was_promoted(tmp_path):
    path = tmp_path / "windows.jsonl"
    lines = [window(0).to_json(), cohort(0).to_json(), promotion_line(10.5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_promotion(path) == 10.5
    assert ([w.t for w in read_file(path)], [c.t for c in read_cohorts(path, 10.0)]) == ([0.0], [0.0])
    for wrong in ('{"t": "x", "promoted": true}', '{"t": 1, "promoted": 1}', '{"promoted"'):
        path.write_text(wrong + "\n")
        for read in (read_promotion, lambda p: read_cohorts(p, 10.0)):
            with pytest.raises(InputError, match=r"promoted|not JSON") as error:
                read(path)
            assert error.value.where == f"{path}:1"
    # A window with a key of this name is a window with a wrong key.
    for other in ({"promoted": True}, {**window(0).to_json(), "promoted": False}):
        path.write_text(json.dumps(other) + "\n")
        with pytest.raises(InputError):
            list(read_file(path))


def test_simulated_outcomes_come_late_too():
    stream = Stream(requests_per_minute=6000, rates={"missed": (0.05, 0.05)})
    late = simulate(SPEC, stream, runs=5, seed=1)
    assert late.promoted == 1.0
    assert late.minutes[0] > 10


def test_the_forecast_says_what_waiting_adds():
    late = SPEC
    soon = JudgeSpec(metrics=(MetricSpec("missed", "rate", "missed", margin=2.0),))
    asked = {"requests_per_minute": 6000.0, "steps": [Step(0.1, 1.0)], "rates": {"missed": 0.05}}
    by_question = {(item.question, item.effect): item for item in forecast(late, **asked) if item.metric == "missed"}
    for item in forecast(soon, **asked):
        waited = by_question[item.question, item.effect].minutes - item.minutes
        assert 10 <= waited < 11.5


def test_what_can_not_be_asked_for_is_refused():
    for wrong in (
        {"type": "histogram", "source": "latency"},
        {"source": "errors"},
        {"label_delay_s": -1.0},
        {"label_delay_s": math.nan},
    ):
        with pytest.raises(ConfigError):
            MetricSpec(**{"name": "m", "source": "m", "label_delay_s": 1.0, **wrong})
    with pytest.raises(ConfigError, match="comes late"):
        JudgeSpec(metrics=(LATE,), guards=(GuardSpec("limit", "missed", 0.1),))
    assert cohorts(0.0)[0].canary["missed"][0] == 200
