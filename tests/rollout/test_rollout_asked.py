"""The judge as one who is asked: by stand-ins for Argo Rollouts and Flagger, over HTTP, with the written manifests."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from controllers import Argo, Flagger
from kube_world import NAME, OPTIONS
from rollout_world import Clock, FakeLedger, FakeSource, plan

from mlcicd.core.errors import ConfigError, InputError, ServiceError
from mlcicd.rollout.asked import Answer, Asked
from mlcicd.rollout.state import Phase, RolloutState
from mlcicd.rollout.store import FileCell, Store
from mlcicd.rollout.traffic import Overtaken
from mlcicd.stages.canary_asked import Subject
from mlcicd.stages.canary_serve import Endpoint, make_server
from mlcicd.targets.kubernetes.controllers import ControllerManifests, Judgement
from mlcicd.targets.kubernetes.manifests import Names
from mlcicd.targets.kubernetes.settings import Settings
from mlcicd.targets.kubernetes.state import ClusterVersion

TOKEN = "the-judges-token"
PERCENTS = (10, 50)


class Cluster:
    """Traffic that somebody else moves, and the judge's answers about it: each from a new process, as it were."""

    environment = "production"

    def __init__(self, folder, *, bad_rate=0.004):
        self.folder = folder
        self.clock = Clock(folder)
        self.ledger = FakeLedger(folder)
        self.bad_rate = bad_rate
        self.moves = []
        self.refuses = None
        self.canary = None

    @property
    def percent(self):
        return self.moves[-1] if self.moves else 0

    def asked(self, attempt="1", **changes):
        return Asked(
            plan(**changes),
            Store(FileCell(self.folder / "rollout.json"), clock=self.clock),
            lambda share_at: FakeSource(share_at, self.bad_rate),
            self.ledger,
            attempt=attempt,
            clock=self.clock,
        )

    def ask(self, subject, share):
        if self.refuses:
            raise self.refuses
        assert (subject.version, subject.champion) == ("2", "1")
        assert share == self.percent / 100, "asked at another share than there is"
        return self.asked(subject.attempt).ask(share)

    def promoted(self, subject):
        return self.asked(subject.attempt).promoted()

    def withdrawn(self, subject, reason):
        return self.asked(subject.attempt).fail(reason)

    def share_of(self, name):
        assert name == self.canary["metadata"]["name"]
        return self.canary["status"]["canaryWeight"] / 100

    def state(self):
        return RolloutState.from_json(Store(FileCell(self.folder / "rollout.json"), clock=self.clock).read())


@pytest.fixture
def said():
    return []


@contextmanager
def serving(cluster, said, token="") -> Iterator[str]:
    server = make_server(Endpoint(cluster, token=token, say=said.append), "127.0.0.1", 0)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def manifests(controller, url, *, token_secret=""):
    judgement = Judgement("1", "1", PERCENTS, 10.0, 150.0, 100.0, url=url, token_secret=token_secret)
    version = ClusterVersion(name="toy", version="2", digest="sha256:01", generation=1, image="r/toy:2")
    made = ControllerManifests(Names("toy", "production"), Settings(**OPTIONS), 90.0, None)
    found = made.handed_over(controller, version, judgement).values()
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def argo(cluster, objects, **options):
    return Argo(
        {name: one for (kind, name), one in objects.items() if kind == "AnalysisTemplate"},
        cluster.moves.append,
        cluster.clock.pass_,
        {("judge-token", "token"): TOKEN},
        **options,
    )


def roll_out(cluster, url, **options):
    objects = manifests("argo-rollouts", url, token_secret="judge-token")
    one = argo(cluster, objects, **options)
    return one.roll_out(objects["Rollout", NAME]), one


# --- Argo Rollouts


@pytest.mark.parametrize("stops_at_success", [True, False], ids=["since-1.8", "before-1.8"])
def test_argo_walks_a_good_version_to_the_end_and_the_registry_follows(tmp_path, said, stops_at_success):
    cluster = Cluster(tmp_path)
    with serving(cluster, said, TOKEN) as url:
        ended, one = roll_out(cluster, url, stops_at_success=stops_at_success)
    assert ended == "Healthy"
    assert cluster.moves == [*PERCENTS, 100]
    assert cluster.ledger.disk.read() == {"champion": "2"}
    state = cluster.state()
    assert (state.phase, state.outcome, state.attempt) == (Phase.DONE, "promote", "1")
    # Each window was judged at the share it was counted at, and none of a time in which the weight was moved.
    assert {point.share for point in state.trace} == {percent / 100 for percent in PERCENTS}
    first = one.measured[0][1]
    assert first["answer"] == "wait" and first["percent"] == 10 and first["windows"] == 0
    assert said == []


def test_argo_takes_a_bad_version_back_and_it_stays_so(tmp_path, said):
    cluster = Cluster(tmp_path, bad_rate=0.08)
    with serving(cluster, said, TOKEN) as url:
        assert roll_out(cluster, url)[0] == "Degraded"
        assert cluster.moves == [10, 0]
        assert cluster.ledger.disk.read() == {"back": "2", "outcome": "rollback"}
        # The same manifests once more: the first question is answered by what is known.
        cluster.moves.clear()
        ended, again = roll_out(cluster, url)
    assert ended == "Degraded" and len(again.measured) == 1
    assert again.measured[0][1]["answer"] == "fail" and "errors: the canary differs" in again.measured[0][1]["reason"]


def test_argo_pauses_where_a_person_has_to_decide(tmp_path, said):
    cluster = Cluster(tmp_path)
    with serving(cluster, said, TOKEN) as url:
        objects = manifests("argo-rollouts", url, token_secret="judge-token")
        metric = objects["AnalysisTemplate", f"{NAME}-judge"]["spec"]["metrics"][0]
        # The judge is never asked for long enough: all that it says is "wait".
        metric["count"], metric["inconclusiveLimit"] = 2, 1
        for stops_at_success in (True, False):
            one = argo(cluster, objects, stops_at_success=stops_at_success)
            assert one.roll_out(objects["Rollout", NAME]) == "Paused"
            assert [answer["answer"] for _, answer in one.measured[-2:]] == ["wait", "wait"]
    assert 0 not in cluster.moves


def test_what_the_registry_refuses_is_aborted_with_all_the_traffic(tmp_path, said):
    cluster = Cluster(tmp_path)
    cluster.ledger.refuses = Overtaken("somebody else promoted another version")
    with serving(cluster, said, TOKEN) as url:
        ended, one = roll_out(cluster, url)
    assert ended == "Degraded"
    assert cluster.moves == [*PERCENTS, 100, 0]
    assert one.measured[-1][1]["reason"].startswith("the registry refused it")
    assert cluster.ledger.disk.read()["back"] == "2"


def test_a_registry_that_is_away_at_the_end_has_refused_nothing(tmp_path, said):
    cluster = Cluster(tmp_path)
    tell, answers = cluster.ledger.promoted, iter([503, 503])

    def promoted(version):
        if next(answers, 200) == 503:
            assert cluster.state().phase is Phase.PROMOTING
            raise ServiceError("the registry is away")
        tell(version)

    cluster.ledger.promoted = promoted
    with serving(cluster, said, TOKEN) as url:
        ended, one = roll_out(cluster, url)
    assert [status for status, _ in one.measured[-3:]] == [503, 503, 200]
    assert ended == "Healthy" and cluster.moves == [*PERCENTS, 100]
    assert cluster.ledger.disk.read() == {"champion": "2"}
    assert (cluster.state().phase, cluster.state().outcome) == (Phase.DONE, "promote")


def test_a_judge_that_can_not_judge_is_an_error_and_no_verdict(tmp_path, said):
    cluster = Cluster(tmp_path)
    cluster.refuses = ServiceError("Prometheus does not answer")
    with serving(cluster, said, TOKEN) as url:
        ended, one = roll_out(cluster, url)
    assert ended == "Degraded"
    assert {status for status, _ in one.measured} == {503}
    # As often as no_data_timeout has intervals, and once more.
    assert len(one.measured) == 11
    assert said and all("Prometheus does not answer" in line for line in said)


# --- Flagger


def flagged(cluster, url):
    one = Flagger(manifests("flagger", url)["Canary", NAME], cluster.moves.append)
    cluster.canary = one.canary
    return one


def test_flagger_walks_a_good_version_to_the_end_and_the_registry_follows(tmp_path, said):
    cluster = Cluster(tmp_path)
    with serving(cluster, said) as url:
        one = flagged(cluster, url)
        for _ in range(100):
            one.iterate()
            if one.status["phase"] == "Succeeded":
                break
            cluster.clock.pass_()
    assert one.status == {"phase": "Succeeded", "canaryWeight": 0, "failedChecks": 0}
    assert cluster.moves == [*PERCENTS, 0]
    assert cluster.ledger.disk.read() == {"champion": "2"}
    assert one.asked[-1][:2] == ("post-rollout", 200)
    assert {status for _, status, _ in one.asked} == {200, 409}


def test_flagger_takes_a_bad_version_back(tmp_path, said):
    cluster = Cluster(tmp_path, bad_rate=0.08)
    with serving(cluster, said) as url:
        one = flagged(cluster, url)
        for _ in range(20):
            one.iterate()
            cluster.clock.pass_()
    assert one.status["phase"] == "Failed" and cluster.moves == [10, 0]
    assert cluster.ledger.disk.read() == {"back": "2", "outcome": "rollback"}
    kind, status, text = next(asked for asked in one.asked if asked[0] == "rollback" and asked[1] == 200)
    assert "errors: the canary differs" in json.loads(text)["reason"], (kind, status)


def test_flagger_gives_up_on_a_judge_that_can_not_judge(tmp_path, said):
    cluster = Cluster(tmp_path)
    with serving(cluster, said) as url:
        one = flagged(cluster, url)
        one.iterate()
        cluster.refuses = ServiceError("Prometheus does not answer")
        for _ in range(30):
            one.iterate()
    assert one.status["phase"] == "Failed" and one.status["failedChecks"] == 10
    assert cluster.moves == [10, 0]
    assert cluster.ledger.disk.read()["outcome"] == "rollback"


# --- the judge itself


def walk(cluster, percent, questions, **options):
    cluster.moves.append(percent)
    for _ in range(questions):
        answered = cluster.asked(**options).ask(percent / 100)
        cluster.clock.pass_()
    return answered


def test_a_step_is_not_passed_by_the_windows_of_the_step_before(tmp_path):
    cluster, steps = Cluster(tmp_path), {"shares": (0.1, 0.25, 0.5)}
    assert walk(cluster, 10, 4, **steps).answer is Answer.ADVANCE
    # Two windows at this share are asked for, and the first question comes before them.
    answers = [walk(cluster, 25, 1, **steps).answer for _ in range(3)]
    assert answers == [Answer.WAIT, Answer.WAIT, Answer.ADVANCE]


def test_windows_in_which_the_weight_may_have_moved_are_judged_at_no_share(tmp_path):
    cluster = Cluster(tmp_path)
    walk(cluster, 10, 3)
    last = cluster.state().consumed
    # Somewhere in these three windows the weight is moved; who asks next says to what.
    cluster.clock.pass_(30)
    asked_at = cluster.clock()
    answers = [walk(cluster, 50, 1).answer for _ in range(3)]
    points = [(point.t, point.share) for point in cluster.state().trace]
    assert [share for _, share in points] == [0.1, 0.1, 0.5, 0.5]
    assert points[1][0] == last and points[2][0] == asked_at
    assert answers == [Answer.WAIT] * 3, "the windows of the step before are no windows of this one"


def test_the_last_step_needs_the_proof_and_not_time_alone(tmp_path):
    cluster = Cluster(tmp_path)
    answered = walk(cluster, 50, 4)
    assert answered.outcome.decision.step_ready and answered.answer is Answer.WAIT
    assert "not yet enough evidence" in answered.reason


def test_what_came_while_nobody_asked_is_left_out(tmp_path):
    cluster = Cluster(tmp_path)
    walk(cluster, 10, 3)
    seen = cluster.state().judge["windows"]
    cluster.clock.pass_(600)
    answered = cluster.asked().ask(0.1)
    assert cluster.state().judge["windows"] == seen
    assert any("nobody had asked for" in note for note in answered.outcome.notes)
    cluster.clock.pass_()
    cluster.asked().ask(0.1)
    assert cluster.state().judge["windows"] == seen + 1


def test_another_attempt_another_model_and_other_rules_begin_again(tmp_path):
    cluster = Cluster(tmp_path, bad_rate=0.08)
    for _ in range(40):
        if walk(cluster, 10, 1).answer is Answer.FAIL:
            break
    assert cluster.state().phase is Phase.DONE
    cluster.bad_rate = 0.004
    assert walk(cluster, 10, 1).answer is Answer.FAIL
    assert walk(cluster, 10, 1, attempt="2").answer is Answer.WAIT
    assert cluster.state().attempt == "2"
    walk(cluster, 10, 3, attempt="2")
    assert cluster.state().judge["windows"] > 0
    answered = walk(cluster, 10, 1, attempt="2", model_digest="sha256:bb")
    assert cluster.state().judge["windows"] == 0 and cluster.state().attempt == "2"
    assert any("model behind the version has changed" in note for note in answered.outcome.notes)


def test_nothing_is_promoted_that_was_not_let_so_far(tmp_path):
    cluster = Cluster(tmp_path)
    assert cluster.asked().promoted().answer is Answer.WAIT
    walk(cluster, 10, 4)
    assert cluster.asked().promoted().answer is Answer.WAIT
    assert cluster.ledger.disk.read() == {}


def test_a_registry_that_is_away_keeps_no_answer_back_and_is_told_later(tmp_path):
    cluster = Cluster(tmp_path, bad_rate=0.08)

    def away(*_):
        raise ServiceError("the registry is away")

    told, cluster.ledger.taken_back = cluster.ledger.taken_back, away
    for _ in range(40):
        answered = walk(cluster, 10, 1)
        if answered.answer is Answer.FAIL:
            break
    assert answered.answer is Answer.FAIL
    assert any("the registry could not be told" in note for note in answered.outcome.notes)
    cluster.ledger.taken_back = told
    assert walk(cluster, 10, 1).answer is Answer.FAIL
    assert cluster.ledger.disk.read()["back"] == "2" and cluster.state().phase is Phase.DONE


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(InputError, match="between 0 and 1"):
        Cluster(tmp_path).asked().ask(share)


# --- what else may come over HTTP


ARGO = "/v1/argo?version=2&champion=1&percent=10"


def test_who_has_no_token_learns_and_changes_nothing(tmp_path, said):
    cluster = Cluster(tmp_path)
    cluster.moves.append(10)
    with serving(cluster, said, TOKEN) as url:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            answer = requests.get(url + ARGO, headers=headers, timeout=10)
            assert answer.status_code == 401 and list(answer.json()) == ["error"]
        assert requests.get(f"{url}/health", timeout=10).json() == {"status": "ok", "environment": "production"}
        assert not (tmp_path / "rollout.json").exists()
        assert requests.get(url + ARGO, headers={"authorization": f"Bearer {TOKEN}"}, timeout=10).ok


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", "", 404),
        ("POST", "/v1/argo", "", 404),
        ("GET", "/v1/argo/promoted", "", 404),
        ("POST", "/v1/flagger/load-test", "{}", 404),
        ("GET", "/v1/argo?version=2&champion=1", "", 400),
        ("GET", "/v1/argo?version=2&champion=1&percent=much", "", 400),
        ("GET", "/v1/argo?version=2&champion=1&percent=nan", "", 400),
        ("GET", "/v1/argo?version=2&percent=5", "", 400),
        ("GET", "/v1/argo?version=..%2F..&champion=1&percent=5", "", 400),
        ("POST", "/v1/flagger/rollback", "", 400),
        ("POST", "/v1/flagger/rollback", "[" * 50_000, 400),
        ("POST", "/v1/flagger/rollback", '{"name": "x"}', 400),
        ("POST", "/v1/flagger/rollback", "x" * 70_000, 413),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_makes_no_sense_is_refused_and_says_why(tmp_path, said, method, path, body, status):
    cluster = Cluster(tmp_path)
    with serving(cluster, said) as url:
        answer = requests.request(method, url + path, data=body, timeout=10)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert not (tmp_path / "rollout.json").exists()


def test_an_address_and_a_length_that_are_none_are_answered(tmp_path, said):
    with serving(Cluster(tmp_path), said) as url:
        for target, length, status in (("HTTP://[x/", "0", 400), ("/health", "\N{SUPERSCRIPT TWO}", 413)):
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
            connection.putrequest("GET", target)
            connection.putheader("content-length", length)
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status == status and json.loads(answer.read())["error"]
            connection.close()


def test_a_defect_is_told_in_the_log_and_not_to_the_caller(tmp_path, said):
    cluster = Cluster(tmp_path)
    cluster.refuses = RuntimeError("internals")
    with serving(cluster, said) as url:
        answer = requests.get(url + ARGO, timeout=10)
    assert answer.status_code == 500 and "internals" not in answer.text
    assert "RuntimeError: internals" in said[0]


def test_flagger_needs_a_cluster_that_knows_the_weight(tmp_path, said):
    cluster = Cluster(tmp_path)
    cluster.share_of = None
    with serving(cluster, said) as url:
        payload = {"name": NAME, "metadata": {"version": "2", "champion": "1"}}
        answer = requests.post(f"{url}/v1/flagger/rollback", json=payload, timeout=10)
    assert answer.status_code == 400 and "can not be known here" in answer.text


def test_subjects_that_nobody_could_mean():
    assert Subject("2", "1").attempt == "1"
    for bad in ("", " ", "a/b", "x" * 65, "1\n"):
        with pytest.raises(InputError):
            Subject(bad, "1")


def test_who_judges_has_to_be_said():
    with pytest.raises(ConfigError, match="who judges"):
        manifests("flagger", "")
    with pytest.raises(ConfigError, match="carry no token"):
        manifests("flagger", "http://judge:1", token_secret="x")
