"""The rollout: it goes on from wherever it was left, and does what the judge says once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_world import SHARES, WINDOW_S, World, plan, result

from mlcicd.core.errors import InputError, ServiceError
from mlcicd.rollout import JudgeSpec, MetricSpec
from mlcicd.rollout.sources.router import RouterSource
from mlcicd.rollout.state import Phase, RolloutState, TracePoint
from mlcicd.rollout.store import FileCell, Store, Superseded, TagCell

WORLD = Path(__file__).with_name("rollout_world.py")


def test_a_good_canary_walks_the_steps_and_is_promoted(tmp_path):
    world = World(tmp_path)
    outcome = world.run()
    assert (outcome.state.outcome, outcome.state.observed) == ("promote", 1.0)
    assert world.target.disk.read()["moves"] == list(SHARES)
    assert world.target.look().live == "2"
    assert world.ledger.disk.read() == {"champion": "2"}
    assert {point.share for point in outcome.state.trace} == set(SHARES)


def test_a_bad_canary_is_taken_back_and_its_errors_are_counted(tmp_path):
    world = World(tmp_path, bad_rate=0.05)
    outcome = world.run()
    assert outcome.state.outcome == "rollback"
    assert world.target.disk.read()["running"] == ["1"]
    assert world.ledger.disk.read() == {"back": "2", "outcome": "rollback"}
    requests, errors = outcome.state.served
    assert 0 < errors < requests
    assert outcome.state.reason.startswith("errors: the canary differs")


def test_a_process_for_every_step_ends_as_one_for_all(tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "many").mkdir()
    one, many = World(tmp_path / "one"), World(tmp_path / "many")
    one.run()
    many.controller().start()
    while many.state().phase is not Phase.DONE:
        many.controller().step()
        many.controller().step()
        many.clock.pass_()
    assert result(many) == result(one)


def test_missed_windows_are_made_up_for_each_once(tmp_path):
    world = World(tmp_path)
    world.controller().start()
    for missed in (1, 7, 0, 3):
        world.clock.pass_(WINDOW_S * missed)
        outcome = world.controller().step()
        assert len(outcome.seen) == missed
    times = [point.t for point in world.state().trace]
    assert times == sorted(set(times))
    # Two moved weights at most, and none of their windows is missing: the source knows the past.
    assert world.state().judge["windows"] == 11


def test_a_source_without_a_past_counts_each_request_once_over_processes(tmp_path):
    """The router's counters only grow; each process reads them once, whenever it comes."""
    world, total = World(tmp_path), {"1": 0, "2": 0}

    def counted(n):
        return SimpleNamespace(requests=n, errors_5xx=0, edges_ms=(10.0, math.inf), counts=(n, 0), epoch="one")

    def process():
        controller = world.controller()
        controller._ground.source = RouterSource(
            lambda: {version: counted(n) for version, n in total.items()},
            "1",
            "2",
            WINDOW_S,
            controller._share_at,
        )
        return controller

    process().start()
    for windows in (1, 3, 0, 7, 1):
        assert world.state().phase is Phase.RUNNING
        world.clock.pass_(WINDOW_S * windows)
        canary = round(600 * windows * world.target.look().share)
        total["2"] += canary
        total["1"] += 600 * windows - canary
        process().step()
        process().step()
        assert world.state().served[0] == total["2"]
    assert sum(point.champion[0] for point in world.state().trace) == total["1"]
    assert {point.share for point in world.state().trace} == set(SHARES)


def test_killed_at_every_write_it_ends_the_same(tmp_path):
    """A real process, killed with SIGKILL before each write that it does to any file, and another that goes on."""
    kinds = ((0.05, "bad", 3, ()), (0.004, "good", 9, ()), (0.004, "worse after promotion", 29, ("1140",)))
    for rate, name, every, late in kinds:
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, str(WORLD), str(tmp_path / name), str(rate), str(every), *late],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["killed"] == len(range(1, said["writes"] + 1, every)) > (10 if late else 30)
        assert said["wrong"] == []
        assert said["different"] == []
        assert said["outcome"] == {"good": "promote"}.get(name, "rollback")


@pytest.mark.parametrize(("rate", "last"), [(0.004, ("promoting", 0.5)), (0.05, ("taking back", 0.1))])
def test_what_is_meant_is_on_disk_before_anything_moves(tmp_path, rate, last):
    world = World(tmp_path, bad_rate=rate)
    found = []

    def watched(name):
        move = getattr(world.target, name)

        def moving(*arguments):
            state = world.state()
            found.append((state.phase.value, state.intended))
            if name == "set_share":
                assert (state.intended, state.observed) == (arguments[1], None)
                assert world.target.attended.read(), "guarded before it has traffic"
            move(*arguments)

        setattr(world.target, name, moving)

    for name in ("set_share", "promote", "take_back"):
        watched(name)
    world.run()
    assert found[0] == ("running", 0.1)
    assert found[-1] == last


def test_changed_rules_or_model_start_the_test_again_and_say_so(tmp_path):
    world = World(tmp_path)
    world.controller().start()
    while world.state().step == 0:
        world.clock.pass_()
        world.controller().step()
    assert world.target.look().share == 0.5
    stricter = JudgeSpec(metrics=(MetricSpec("errors", margin=1.5, floor=0.005),), min_windows=2, step_windows=2)
    outcome = world.controller(spec=stricter).step()
    assert "configuration has changed: the test starts again" in outcome.notes[0]
    assert (outcome.state.step, outcome.decision.windows, world.target.look().share) == (0, 0, 0.1)
    world.clock.pass_()
    world.controller(spec=stricter).step()
    outcome = world.controller(spec=stricter, model_digest="sha256:bb").step()
    assert "model behind the version has changed" in outcome.notes[0]
    assert outcome.decision.windows == 0


def test_a_paused_canary_stays_and_a_harmful_one_is_taken_back_all_the_same(tmp_path):
    (tmp_path / "good").mkdir(), (tmp_path / "bad").mkdir()
    good = World(tmp_path / "good")
    good.controller().start()
    good.controller().pause()
    for _ in range(30):
        good.clock.pass_()
        outcome = good.controller().step()
    assert (outcome.state.phase, outcome.state.step, good.target.look().share) == (Phase.PAUSED, 0, 0.1)
    assert outcome.decision.windows == 30
    assert good.run().state.outcome == "promote"

    bad = World(tmp_path / "bad", bad_rate=0.08)
    bad.controller().start()
    bad.controller().pause()
    for _ in range(10):
        bad.clock.pass_()
        outcome = bad.controller().step()
    assert (outcome.state.phase, outcome.state.outcome) == (Phase.DONE, "rollback")


def test_a_suspension_keeps_the_evidence_and_its_time_is_none(tmp_path):
    world = World(tmp_path)
    world.controller().start()
    for _ in range(3):
        world.clock.pass_()
        world.controller().step()
    before = world.state()
    world.controller().suspend("the watch was ended")
    assert (world.target.look().share, world.state().phase) == (0.0, Phase.SUSPENDED)
    world.clock.pass_(2000)
    assert world.controller().step().seen == ()
    assert world.target.look().share == 0.0
    outcome = world.controller().start()
    assert (outcome.state.step, world.target.look().share) == (before.step, SHARES[before.step])
    assert outcome.state.trace == before.trace
    assert world.controller().step().decision.action == "continue"
    assert world.run().state.outcome == "promote"
    assert all(point.share > 0 for point in world.state().trace)


def test_traffic_that_went_back_by_itself_is_noticed_and_its_windows_are_no_evidence(tmp_path):
    world = World(tmp_path)
    world.controller().start()
    world.clock.pass_()
    world.controller().step()
    # Nobody looks for longer than max_unattended_s (600): the target takes the share away.
    world.clock.pass_(600)
    world.target.disk.update(share=0.0)
    world.clock.pass_(700)
    outcome = world.controller().step()
    assert any("nobody had looked in time" in note for note in outcome.notes)
    assert world.target.disk.read()["moves"][:2] == [0.1, 0.1]
    assert max(window.t for window, _ in outcome.seen) < 1010 + 600


def test_a_weight_that_is_not_what_was_set_is_an_error(tmp_path):
    world = World(tmp_path)
    world.target.set_share = lambda version, share: None
    with pytest.raises(ServiceError, match=r"was to get 10\.0% of the traffic and has 0\.0%"):
        world.controller().start()


def test_a_refused_promotion_is_taken_back(tmp_path):
    world = World(tmp_path)
    world.ledger.refuses = ServiceError("the champion is version 7")
    with pytest.raises(ServiceError, match="version 7"):
        world.run()
    assert (world.target.look().live, world.state().phase, world.state().outcome) == ("1", Phase.DONE, "rollback")
    assert world.controller().step().state.phase is Phase.DONE


def test_what_others_did_to_the_target_ends_the_rollout(tmp_path):
    for name, change, outcome in (
        ("taken", {"canary": None, "share": 0.0}, "rollback"),
        ("made-live", {"live": "2", "canary": None, "share": 0.0}, "promote"),
        ("other-champion", {"live": "9", "running": ["9", "2"]}, "inconclusive"),
    ):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        world.controller().start()
        world.target.disk.update(**change)
        world.clock.pass_()
        state = world.controller().step().state
        assert (state.phase, state.outcome) == (Phase.DONE, outcome), name
        assert world.target.look().canary is None


def test_a_canary_that_was_taken_out_and_deployed_again_starts_again(tmp_path):
    world = World(tmp_path)
    world.controller().start()
    while world.state().step == 0:
        world.clock.pass_()
        world.controller().step()
    world.target.disk.update(share=0.0)
    outcome = world.controller().step()
    assert any("test starts again" in note for note in outcome.notes)
    assert (outcome.state.step, outcome.decision.windows, world.target.look().share) == (0, 0, 0.1)


def test_a_persons_word_decides_and_is_recorded(tmp_path):
    for name in ("promote", "abort"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        world.controller().start()
        outcome = getattr(world.controller(), name)("it must be so")
        assert outcome.state.reason == "it must be so"
        assert world.target.look().live == {"promote": "2", "abort": "1"}[name]
        again = getattr(world.controller(), name)("again")
        assert again.state.reason == "it must be so"


def test_a_step_without_a_start_is_refused(tmp_path):
    with pytest.raises(InputError, match="no rollout of version 2"):
        World(tmp_path).controller().step()


def test_no_windows_at_all_hold_and_then_take_back(tmp_path):
    world = World(tmp_path)
    spec = JudgeSpec(metrics=(MetricSpec("errors", margin=2.0),), no_data_hold_s=60.0, no_data_timeout_s=300.0)
    actions = []

    def silent():
        controller = world.controller(spec=spec)
        controller._ground.source.read = lambda since, until: []
        return controller

    silent().start()
    for _ in range(60):
        world.clock.pass_()
        outcome = silent().step()
        actions.append(outcome.decision.action.value)
        if outcome.state.phase is Phase.DONE:
            break
    assert outcome.state.outcome == "rollback"
    assert outcome.state.reason.startswith("no request has reached the canary")
    assert actions.index("hold") < actions.index("rollback") < 40


def test_the_state_stays_under_fifty_kilobytes(tmp_path):
    from mlcicd.rollout import Arm, Histogram, Judge, Window

    edges = tuple(float(10 * 1.3**i) for i in range(24))
    spec = JudgeSpec(
        metrics=(
            MetricSpec("errors", margin=2.0),
            MetricSpec("latency", type="histogram", source="latency", tolerance=1.25),
            *(MetricSpec(f"rate-{i}", source=f"rate-{i}", margin=2.0) for i in range(6)),
        )
    )
    judge = Judge(spec)
    state = RolloutState("sha256:x", "2", "1", "sha256:y", 0.0, {})
    for i in range(50):
        state = state.noting(float(i), "x" * 100).moving(float(i), 0.1).moving(float(i), None)
    for i in range(400):
        arm = Arm(500, 3, latency_ms=Histogram(edges, (20,) * 25), rates={f"rate-{k}": (500, 7) for k in range(6)})
        decision = judge.update(Window(1.7e9 + 10.0 * i, arm, arm, 0.5))
        state = state.tracing(Window(1.7e9 + 10.0 * i, arm, arm, 0.5), decision)
    document = state.having(judge=judge.state()).to_json()
    assert len(json.dumps(document)) < 50_000
    assert state.served == (400 * 500, 400 * 3)
    assert RolloutState.from_json(json.loads(json.dumps(document))) == state.having(judge=judge.state())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5]), st.integers(0, 99), st.integers(0, 9)), max_size=400),
)
def test_a_thinned_trace_loses_no_count(rows):
    from mlcicd.rollout.state import _thinned

    trace = ()
    for t, (share, requests, errors) in enumerate(rows):
        trace = _thinned((*trace, TracePoint(float(t), share, (requests, 0), (requests, errors), (0.0,))))
    assert sum(p.canary[1] for p in trace) == sum(errors for _, _, errors in rows)
    for share in (0.1, 0.5):
        assert sum(p.canary[0] for p in trace if p.share == share) == sum(n for s, n, _ in rows if s == share)


# --- the store


class FakeTags(dict):
    """A registry's tags: no compare-and-swap, texts of at most 5,000 characters."""

    def all(self):
        return dict(self)

    def set(self, tags):
        assert all(len(value) <= 5000 for value in tags.values())
        self.update(tags)


def cells(tmp_path):
    return {"file": FileCell(tmp_path / "state" / "rollout.json"), "tags": TagCell(FakeTags(), "mlcicd.rollout")}


@pytest.mark.parametrize("kind", ["file", "tags"])
def test_a_document_is_read_back_and_swapped_only_when_it_is_the_old_one(tmp_path, kind):
    cell = cells(tmp_path)[kind]
    store = Store(cell)
    assert store.read() is None
    large = {"text": "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(12_000))}
    for document in ({"a": 1}, large, {"b": 2}):
        with store.hold() as hold:
            hold.save(document)
        assert store.read() == document
    with pytest.raises(Superseded):
        cell.swap("something else", "new")
    assert store.read() == {"b": 2}


@pytest.mark.parametrize("kind", ["file", "tags"])
def test_a_process_that_slept_through_its_lease_can_write_no_more(tmp_path, kind):
    cell, now = cells(tmp_path)[kind], [1000.0]
    slow, quick = (Store(cell, lease_s=60.0, clock=lambda: now[0]) for _ in range(2))
    with pytest.raises(Superseded), slow.hold() as asleep:
        now[0] += 61
        with quick.hold() as awake:
            assert awake.token > asleep.token
            awake.save({"by": "quick"})
        asleep.save({"by": "slow"})
    assert quick.read() == {"by": "quick"}


class InterruptedCell:
    """A cell during whose next write a signal comes: what was to be written is, and nobody is told."""

    where = "here"

    def __init__(self, inner) -> None:
        self.inner = inner
        self.armed = False

    def read(self):
        return self.inner.read()

    def swap(self, old, new) -> None:
        self.inner.swap(old, new)
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["the lease is taken", "the document is saved"])
def test_an_interrupted_write_leaves_no_lease_that_we_wait_for_ourselves(tmp_path: Path, when: str) -> None:
    cell = InterruptedCell(FileCell(tmp_path / "rollout.json"))
    store = Store(cell)
    with pytest.raises(KeyboardInterrupt):
        cell.armed = when == "the lease is taken"
        with store.hold() as hold:
            cell.armed = True
            hold.save({"step": 1})
    with store.hold(wait_s=0.3) as hold:
        hold.save({"step": 2})
    assert store.read() == {"step": 2}


def test_a_lease_is_waited_for_and_that_of_a_dead_process_is_not(tmp_path):
    cell = cells(tmp_path)["file"]
    with Store(cell).hold(), pytest.raises(ServiceError, match="another process"), Store(cell).hold(wait_s=0.3):
        raise AssertionError("two at a time")
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom mlcicd.rollout.store import FileCell, Store\n"
        "hold = Store(FileCell(Path(sys.argv[1]))).hold()\nhold.__enter__()\nos._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "state" / "rollout.json")], check=False)
    assert done.returncode == 9
    with Store(cell).hold(wait_s=0.3) as hold:
        hold.save({"by": "the living"})


def test_a_writer_that_dies_between_its_pieces_leaves_the_old_text(monkeypatch):
    tags = FakeTags()
    cell = TagCell(tags, "mlcicd.rollout")
    texts = ["".join(chr(0x4E00 + (i * i * 7919 + k) % 20000) for i in range(8_000)) for k in range(4)]
    cell.swap(None, texts[0])
    cell.swap(texts[0], texts[1])
    write = tags.set

    def dying(named):
        if "mlcicd.rollout" in named:
            raise KeyboardInterrupt
        write(named)

    monkeypatch.setattr(tags, "set", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cell.swap(texts[1], texts[2])
        assert cell.read() == texts[1]
    monkeypatch.undo()
    cell.swap(texts[1], texts[3])
    assert cell.read() == texts[3]


def test_torn_or_foreign_state_is_an_error_and_can_be_discarded(tmp_path):
    tags = FakeTags()
    cell = TagCell(tags, "mlcicd.rollout")
    store = Store(cell)
    for text in ("a", "b"):
        with store.hold() as hold:
            hold.save({"text": text})
    # The pieces of the text before the last are never written over by a writer that dies between them.
    turn = json.loads(tags["mlcicd.rollout"])["turn"]
    tags[f"mlcicd.rollout.{1 - turn}.0"] = "torn"
    assert store.read() == {"text": "b"}
    tags[f"mlcicd.rollout.{turn}.0"] = "torn"
    with pytest.raises(InputError, match="can not be read"):
        store.read()
    path = tmp_path / "rollout.json"
    path.write_text('{"token": 1}')
    damaged = Store(FileCell(path))
    with pytest.raises(InputError, match="damaged"):
        damaged.read()
    damaged.discard()
    assert damaged.read() is None
    with pytest.raises(InputError, match="can not be read"):
        RolloutState.from_json({"schema_version": 1})


def test_plans_differ_by_rules_and_steps():
    assert plan().digest() == plan(version="3").digest()
    assert plan().digest() != plan(shares=(0.1, 0.4)).digest()
