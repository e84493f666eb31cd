"""Windows from the router's counters and from files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mlcicd.core.errors import InputError
from mlcicd.rollout.sources import Source, SourceContext, make_source
from mlcicd.rollout.sources.file import read_file
from mlcicd.rollout.sources.router import RouterSource
from mlcicd.rollout.windows import Arm, Histogram, Window


@dataclass(frozen=True)
class Counted:
    requests: int = 0
    errors_5xx: int = 0
    edges_ms: tuple[float, ...] = (10.0, math.inf)
    counts: tuple[int, ...] = (0, 0)
    epoch: str = "a"

    def plus(self, n: int, errors: int = 0) -> Counted:
        counts = (self.counts[0] + n - 1, self.counts[1] + 1)
        return replace(self, requests=self.requests + n, errors_5xx=self.errors_5xx + errors, counts=counts)


class Router:
    def __init__(self) -> None:
        self.now = {"1": Counted(), "2": Counted()}
        self.share = [(0.0, 0.1)]

    def add(self, champion: int, canary: int, errors: int = 0) -> None:
        self.now = {"1": self.now["1"].plus(champion), "2": self.now["2"].plus(canary, errors)}

    def share_at(self, t: float) -> float:
        return [share for since, share in self.share if since <= t][-1]

    def source(self) -> RouterSource:
        return RouterSource(lambda: self.now, "1", "2", 10.0, self.share_at)


def test_every_source_is_a_source() -> None:
    router = Router()
    context = SourceContext("1", "2", 10.0, router.share_at, counters=lambda: router.now, windows=Path("w.jsonl"))
    for name in ("router", "file"):
        assert isinstance(make_source(name, context), Source)
    assert isinstance(make_source("prometheus", replace(context, settings={"url": "http://localhost"})), Source)


def test_a_window_is_what_was_counted_between_two_readings() -> None:
    router = Router()
    router.add(1000, 1000, 500)
    source = router.source()
    assert source.read(None, 100.0) == []
    router.add(90, 10, 1)
    assert source.read(None, 104.0) == []
    [window] = source.read(None, 110.0)
    assert window == Window(100.0, Arm(90, 0, Histogram((10.0,), (89, 1))), Arm(10, 1, Histogram((10.0,), (9, 1))), 0.1)
    [empty] = source.read(100.0, 120.0)
    assert (empty.t, empty.champion.requests, empty.canary.requests) == (110.0, 0, 0)


def test_a_job_every_five_minutes_counts_all_of_them_in_one_window() -> None:
    router = Router()
    first = router.source()
    first.read(None, 100.0)
    kept = json.dumps(first.state())
    router.add(900, 100, 2)
    second = router.source()
    second.restore(json.loads(kept))
    [window] = second.read(None, 400.0)
    assert (window.t, window.canary.requests, window.canary.errors) == (100.0, 100, 2)
    # Killed before the state was written: the next job finds the same beginning, and all of it.
    router.add(900, 100, 3)
    third = router.source()
    third.restore(json.loads(kept))
    [window] = third.read(None, 700.0)
    assert (window.t, window.canary.requests, window.canary.errors) == (100.0, 200, 5)


def test_a_restarted_router_counts_from_nothing() -> None:
    router = Router()
    source = router.source()
    router.add(500, 500, 400)
    source.read(None, 100.0)
    router.now = {version: Counted(epoch="b") for version in router.now}
    router.add(90, 10, 1)
    [window] = source.read(None, 110.0)
    assert (window.champion.requests, window.canary.requests, window.canary.errors) == (90, 10, 1)


def test_a_window_across_a_change_of_the_share_is_left_out_unless_it_was_told() -> None:
    router = Router()
    source = router.source()
    source.read(None, 100.0)
    router.share.append((105.0, 0.25))
    router.add(90, 10)
    assert source.read(None, 110.0) == []
    router.add(80, 20)
    [window] = source.read(None, 120.0)
    assert (window.share, window.canary.requests) == (0.25, 20)
    router.share.append((125.0, 0.5))
    source.restart(125.0)
    router.add(50, 50)
    [window] = source.read(110.0, 135.0)
    assert (window.t, window.share, window.canary.requests) == (125.0, 0.5, 50)


def test_a_version_that_is_gone_has_no_requests() -> None:
    router = Router()
    source = router.source()
    source.read(None, 100.0)
    del router.now["2"]
    [window] = source.read(None, 110.0)
    assert window.canary == Arm(0)


@pytest.mark.parametrize("state", [{"t": "now", "readings": {}}, {"t": 1.0}, {"t": 1.0, "readings": {"1": {}}}])
def test_a_damaged_reading_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(InputError, match="damaged"):
        Router().source().restore(state)


def write(path: Path, *windows: Window) -> Path:
    path.write_text("".join(json.dumps(window.to_json()) + "\n" for window in windows))
    return path


def window(t: float, errors: int = 0) -> Window:
    return Window(t, Arm(90, 1, rates={"kpi": (90, 9)}), Arm(10, errors, rates={"kpi": (10, 2)}), 0.1)


CSV = """t,share,champion.requests,champion.errors,canary.requests,canary.errors,champion.rates.kpi.n,\
champion.rates.kpi.x,canary.rates.kpi.n,canary.rates.kpi.x
0,0.1,90,1,10,0,90,9,10,2
10,0.1,90,1,10,3,90,9,10,2
"""


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    lines = write(tmp_path / "w.jsonl", window(0), window(10, 3))
    table = tmp_path / "w.csv"
    table.write_text(CSV)
    assert list(read_file(table)) == list(read_file(lines)) == [window(0), window(10, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CSV.replace("10,0.1,90,1,10,3", "10,0.1,90,1,10,"), r"canary.errors is missing"),
        (CSV.replace("10,0.1,90,1,10,3", "10,0.1,90,1,,3"), r"canary lacks requests"),
        (CSV.replace("10,0.1,90", "10,,90"), r"w.csv:3: window lacks share"),
        (CSV.replace("10,0.1,90", "10,0.1,many"), r"champion.requests is not a number: 'many'"),
        (CSV.replace("10,0.1,90", "10,0.1,nan"), r"champion.requests must be finite"),
        (CSV.replace("10,0.1,90", "0,0.1,90"), r"w.csv:3: the window at t=0 does not come after"),
        (CSV.replace("canary.requests", "canary.request"), r"w.csv:1: unknown column 'canary.request'"),
        (CSV.replace("canary.requests", "champion.requests"), "a column is there twice"),
        (CSV + "20,0.1\n", "w.csv:4: 2 cells under 10 columns"),
        (CSV.replace(",90,9,10,2\n10,", ",90,9,10,\n10,"), "w.csv:2: rates.kpi lacks x|canary.rates.kpi lacks x"),
        (CSV.replace("10,3", "10,30"), "30 errors in 10 requests"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_file(path))


def test_wrong_json_lines_are_refused_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "w.jsonl", window(0))
    path.write_text(path.read_text() + "\n{]\n")
    with pytest.raises(InputError, match=r"w.jsonl:3: this line is not JSON"):
        list(read_file(path))
    with pytest.raises(InputError, match="can not read the windows"):
        list(read_file(tmp_path / "nowhere.jsonl"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="can not read the windows"):
        list(read_file(path))


def test_a_growing_file_gives_each_window_once_and_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    source = make_source("file", SourceContext("1", "2", 10.0, lambda _t: 0.1, windows=path))
    assert source.read(None, 1000.0) == []
    source.restart(20.0)
    write(path, window(10), window(20), window(30), window(40))
    assert [w.t for w in source.read(None, 45.0)] == [20.0, 30.0]
    again = make_source("file", SourceContext("1", "2", 10.0, lambda _t: 0.1, windows=path))
    again.restore(json.loads(json.dumps(source.state())))
    assert [w.t for w in again.read(None, 45.0)] == [20.0, 30.0]
    with path.open("a") as file:
        file.write(json.dumps(window(50).to_json())[:40])
    assert [w.t for w in again.read(30.0, 99.0)] == [40.0]


def test_a_file_begun_without_a_restart_begins_with_its_last_closed_window(tmp_path: Path) -> None:
    path = write(tmp_path / "w.jsonl", window(10), window(20), window(30))
    context = SourceContext("1", "2", 10.0, lambda t: 0.1 if t < 25 else 0.2, windows=path)
    assert [w.t for w in make_source("file", context).read(None, 45.0)] == [30.0]
    assert [w.t for w in make_source("file", context).read(0.0, 45.0)] == [10.0, 30.0]
