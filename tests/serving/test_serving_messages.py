"""Messages of refused requests: none of the request's own strings, in a time that its size bounds."""

from __future__ import annotations

import pytest

from mlcicd.serving.server import errors
from mlcicd.serving.server.errors import MAX_MESSAGE, MAX_STRINGS, MAX_TEXT, without_request_data


@pytest.mark.parametrize(
    ("message", "values", "told"),
    [
        ("can not score hush, nor hush-two", ["hush", "hush-two"], "can not score <value>, nor <value>"),
        ("'quoted hush'", ["hush"], "quoted <value>"),
        ("overlaps: abcdef.", ["abcd", "cdef"], "overlaps: <value>."),
        ("two lines: hush\nmore hush. End\nnext", ["hush\nmore hush"], "two lines: <value>. End"),
        ("long: " + "h" * 3000 + " end", ["h" * 3000], "long: <value>"),
        ("long: " + "h" * 1000 + " end", ["h" * 1000], "long: <value> end"),
        ("of", ["of"], "of"),
    ],
)
def test_the_strings_of_a_request_are_taken_out(message, values, told):
    assert without_request_data(message, {"deep": [[{"er": value}] for value in values]}) == told


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_cells_of_csv_are_taken_out(end):
    body = end.join(["number,word", '12.5,"hush, two"', "1e3,hush"])
    told = without_request_data("word: 12.5 is no 1e3 of hush, two, hush", body.encode())
    assert told == "word: 12.5 is no 1e3 of <value>,<value>, <value>"


@pytest.mark.parametrize("start", range(MAX_TEXT - 130, MAX_TEXT + 5, 7))
def test_no_part_of_a_string_across_the_cut_is_told(start):
    """What is taken out before it brings the cut into what is told."""
    filler, secret = "f" * (start - 10), "0123456789" * 30
    for length in (20, 99, 100, 101, 300):
        told = without_request_data(f"{filler} at last {secret[:length]}", [filler, secret[:length]])
        assert told.startswith("<value>")
        assert "012" not in told


def test_too_many_strings_are_not_searched_for(monkeypatch):
    searched = []
    without = errors._without
    monkeypatch.setattr(
        errors, "_without", lambda text, values: searched.append((text, values)) or without(text, values)
    )
    names = [f"column-{number}" for number in range(MAX_STRINGS + 1)]
    message = f"extra inputs {names}"
    told = without_request_data(message, {"columns": names, "data": []})
    assert not searched
    assert "column-" not in told
    assert "too many strings" in told
    told = without_request_data(message, {"columns": names[1:] * 2, "data": [names[1:]]})
    assert len(searched) == 1
    assert told.startswith("extra inputs ['column-0', '<value>'")
    assert len(told) <= MAX_MESSAGE


def test_a_deep_body_is_searched():
    deep: object = "hush"
    for _ in range(100_000):
        deep = [deep]
    assert without_request_data("can not score hush", deep) == "can not score <value>"
    while isinstance(deep, list):  # taken apart here: its own end would be as deep
        deep = deep.pop()
