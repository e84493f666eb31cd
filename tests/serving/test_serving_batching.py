"""Requests that wait together: predicted together, answered as if each had been alone."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcicd.serving.server.batching import MAX_REQUESTS, Batcher
from mlcicd.serving.server.errors import RequestRefused
from mlcicd.serving.server.model import Model
from mlcicd.serving.server.questions import Answer, Request

NUMBER = st.one_of(st.floats(-50, 50), st.integers(-50, 50), st.none())
ROWS = st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=0, max_size=4)


def _split(rows):
    return {"dataframe_split": {"columns": ["a", "b", "c"], "data": rows}}


def _records(rows):
    return {"dataframe_records": [dict(zip("cab", row, strict=True)) for row in rows]}


def _tensors(rows):
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    named = zip("abc", columns, strict=True)
    return {"inputs": [{"name": n, "shape": [len(c)], "datatype": "FP64", "data": c} for n, c in named]}


@st.composite
def requests(draw):
    kind = draw(st.sampled_from(["split", "records", "v2", "text"]))
    if kind == "text":
        return Request("invocations", draw(st.sampled_from([b"{", b'{"inputs": 3}', b"[]"])), "application/json")
    rows = draw(ROWS)
    body = {"split": _split, "records": _records, "v2": _tensors}[kind](rows)
    protocol = "v2" if kind == "v2" else "invocations"
    return Request(protocol, json.dumps(body).encode(), "application/json")


@pytest.fixture(scope="module", params=["sklearn", "tree"])
def model(models, request):
    return Model(models / request.param, "toy", "1")


def _outcome(outcome):
    if isinstance(outcome, RequestRefused):
        return outcome.status, outcome.message
    return 200, outcome.body


def _answers(model, asked):
    found = {position: outcome for part in model.answer(asked) for position, outcome in part}
    return [_outcome(found[position]) for position in range(len(asked))]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(requests(), min_size=1, max_size=8))
def test_together_they_are_answered_as_each_alone(model, asked):
    assert model.batched
    # A null spoils the prediction of the linear model: only its own request may fail.
    assert _answers(model, asked) == [_answers(model, [one])[0] for one in asked]


@pytest.mark.filterwarnings("ignore:.*Add type hints")
def test_only_models_known_to_answer_row_by_row_are_batched_unasked(models):
    assert not Model(models / "scripted-1", "toy", "1").batched
    assert Model(models / "scripted-1", "toy", "1", "on").batched
    assert not Model(models / "sklearn", "toy", "1", "off").batched


def test_a_batch_is_one_prediction(model, monkeypatch):
    seen = []
    predict = model._of_array
    monkeypatch.setattr(model, "_of_array", lambda array: seen.append(len(array)) or predict(array))
    asked = [Request("invocations", json.dumps(_split([[1, 2, 3]] * n)).encode(), "") for n in (1, 2, 3)]
    assert [status for status, _ in _answers(model, asked)] == [200] * 3
    assert seen == [6]


def _deepest():
    for depth in (900, 700, 500):
        body = "[" * depth + "]" * depth
        try:
            json.loads(body)
        except RecursionError:
            continue
        return body
    raise AssertionError("no depth can be read")


@pytest.mark.parametrize("where", ["read", "predicted", "text"])
def test_a_request_that_breaks_the_server_fails_alone(model, monkeypatch, where):
    class Broken(Exception):
        def __str__(self):
            raise ZeroDivisionError

    good = Request("invocations", json.dumps(_split([[1, 2, 3]])).encode(), "")
    # What the model says of it is searched for the strings of its body, however deep that is.
    body = json.dumps(_split([[1, 2, 4]]))[:-1] + f', "note": {_deepest()}}}'
    asked = [good, Request("invocations", body.encode(), ""), good]
    if where == "read":
        read = model._read_by_protocol
        monkeypatch.setattr(model, "_read_by_protocol", lambda one: read(one) if one is good else 1 / 0)
    else:
        predict = model._of_array

        def picky(array):
            if 4 in array[:, 2]:
                raise Broken if where == "text" else ValueError("no fours")
            return predict(array)

        monkeypatch.setattr(model, "_of_array", picky)
    answers = _answers(model, asked)
    assert [status for status, _ in answers] == [200, 500, 200]
    if where != "read":
        assert ("Broken: its text can not be read" if where == "text" else "ValueError: no fours") in answers[1][1]


def test_what_breaks_while_a_failure_is_told_is_its_own_failure(model, monkeypatch):
    def broken(question):
        if len(question.payload["dataframe_split"]["data"]) == 2:
            raise KeyError("somewhere")
        return [1]

    monkeypatch.setattr(model, "_predict", broken)
    monkeypatch.setattr(model, "_answer_together", lambda questions: None)
    asked = [Request("invocations", json.dumps(_split([[1, 2, 3]] * n)).encode(), "") for n in (1, 2, 1)]
    assert [status for status, _ in _answers(model, asked)] == [200, 500, 200]


class _Gate:
    """Answers with the number of requests it was handed; waits for `opened` before each."""

    def __init__(self) -> None:
        self.opened, self.entered = threading.Event(), threading.Event()
        self.groups: list[list[bytes]] = []

    def __call__(self, asked):
        self.entered.set()
        assert self.opened.wait(60)
        self.groups.append([request.body for request in asked])
        yield [(position, Answer(request.body, [])) for position, request in enumerate(asked)]


def _batcher(gate, pool, *, together=True):
    return Batcher(gate, pool, 1, together=together)


async def _gathered(gate, batcher, *, cancel=False):
    def ask(number: int) -> asyncio.Future[Answer]:
        return batcher.submit(Request("invocations", str(number).encode(), ""))

    first = ask(0)
    await asyncio.to_thread(gate.entered.wait, 60)
    others = [ask(number) for number in range(1, 5)]
    assert batcher.pending == 5
    if cancel:
        others[1].cancel()
    gate.opened.set()
    kept = [first, *(other for other in others if not other.cancelled())]
    answers = [answer.body for answer in await asyncio.gather(*kept)]
    assert batcher.pending == 0
    return answers


@pytest.mark.parametrize(
    ("together", "groups"),
    [(True, [[b"0"], [b"1", b"2", b"3", b"4"]]), (False, [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]])],
)
def test_what_came_while_a_thread_was_busy_goes_in_together(together, groups):
    async def run():
        gate = _Gate()
        with ThreadPoolExecutor(1) as pool:
            answers = await _gathered(gate, _batcher(gate, pool, together=together))
        return gate.groups, answers

    assert asyncio.run(run()) == (groups, [b"0", b"1", b"2", b"3", b"4"])


def _handed_over(come, *, together=True):
    """The groups that are handed over; `come` submits requests by number, a turn of the event loop each."""

    async def run():
        gate = _Gate()
        gate.opened.set()
        with ThreadPoolExecutor(1) as pool:
            batcher = _batcher(gate, pool, together=together)
            await asyncio.gather(
                *await come(lambda number: batcher.submit(Request("invocations", str(number).encode(), "")))
            )
        return gate.groups

    return asyncio.run(run())


def test_what_has_arrived_is_read_before_a_free_thread_takes_it():
    async def come(ask):
        asked = []
        for number in range(4):
            asked.append(ask(number))
            # As a server does: a turn to read a request, and one to begin with it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return asked

    assert _handed_over(come) == [[b"0", b"1", b"2", b"3"]]
    assert sum(map(len, alone := _handed_over(come, together=False))) == len(alone) == 4


def test_no_request_waits_for_others_to_come():
    async def come(ask):
        asked = [ask(0)]
        turns = 0
        while not asked[0].done():
            # Whoever comes in every turn holds nobody up for long.
            asked.append(ask(turns))
            await asyncio.sleep(0)
            turns += 1
        return asked

    (first, *_) = _handed_over(come)
    assert len(first) < MAX_REQUESTS

    async def one(ask):
        return [ask(0)]

    assert _handed_over(one) == [[b"0"]]


def test_a_request_nobody_waits_for_any_more_is_not_predicted():
    async def run():
        gate = _Gate()
        with ThreadPoolExecutor(1) as pool:
            await _gathered(gate, _batcher(gate, pool), cancel=True)
        return gate.groups

    assert asyncio.run(run()) == [[b"0"], [b"1", b"3", b"4"]]


def test_a_defect_is_answered_and_the_next_request_is_served():
    def broken(asked):
        if asked[0].body == b"bad":
            raise ZeroDivisionError
        yield [(0, Answer(b"good", []))]

    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = _batcher(broken, pool)
            with pytest.raises(RequestRefused, match="failed to answer"):
                await batcher.submit(Request("invocations", b"bad", ""))
            return (await batcher.submit(Request("invocations", b"fine", ""))).body

    assert asyncio.run(run()) == b"good"
