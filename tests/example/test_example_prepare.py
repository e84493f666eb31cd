"""prepare.py on tables small enough to check by eye."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

HOURS = pd.to_datetime([f"2013-01-01T{hour:02d}:00:00Z" for hour in range(4)], utc=True)


def flights_at(prepare: ModuleType, *departures: tuple[str, int]) -> pd.DataFrame:
    """Flights (origin, index into HOURS), each on time."""
    rows = [
        {
            "month": 1,
            "flight_id": f"flight-{number}",
            "departure": HOURS[hour],
            "delayed": 0,
            "carrier": "UA",
            "origin": origin,
            "dest": "ORD",
            "distance": 700,
            "sched_dep_minutes": hour * 60,
            "day_of_week": 1,
            "hourly_departures": 1,
        }
        for number, (origin, hour) in enumerate(departures)
    ]
    return pd.DataFrame(rows).astype({"delayed": "Int8"})


@pytest.fixture
def weather(prepare: ModuleType) -> pd.DataFrame:
    """EWR reads the barometer in hours 0 and 3 and loses hour 2 altogether; JFK reads it every hour."""
    readings = [("EWR", 0, 1000.0), ("EWR", 1, None), ("EWR", 3, 1030.0)]
    readings += [("JFK", hour, 900.0 + hour) for hour in range(4)]
    table = pd.DataFrame(readings, columns=["origin", "hour", "pressure"])
    for name in prepare.WEATHER:
        if name != "pressure":
            table[name] = 1.0
    table["wind_gust"] = [30.0, None, None, None, None, None, None]
    table["departure"] = HOURS[table.pop("hour")]
    return table.sort_values(["departure", "origin"], ignore_index=True)


def test_archive_gaps_take_the_last_reading_of_the_same_station(prepare: ModuleType, weather: pd.DataFrame) -> None:
    flights = flights_at(prepare, ("EWR", 0), ("EWR", 1), ("EWR", 2), ("EWR", 3))
    joined = prepare.with_archived_weather(flights, weather)
    assert joined["pressure"].tolist() == [1000.0, 1000.0, 1000.0, 1030.0]


def test_no_gust_stays_no_gust_in_the_archive(prepare: ModuleType, weather: pd.DataFrame) -> None:
    joined = prepare.with_archived_weather(flights_at(prepare, ("EWR", 0), ("EWR", 1)), weather)
    assert joined["wind_gust"].isna().tolist() == [False, True]


def test_live_weather_keeps_the_gaps(prepare: ModuleType, weather: pd.DataFrame) -> None:
    flights = flights_at(prepare, ("EWR", 0), ("EWR", 1), ("EWR", 2), ("JFK", 2))
    joined = prepare.with_live_weather(flights, weather).set_index("flight_id")
    assert joined["pressure"].isna().to_dict() == {
        "flight-0": False, "flight-1": True, "flight-2": True, "flight-3": False
    }  # fmt: skip
    assert joined.loc["flight-3", "pressure"] == 902.0


def test_requests_carry_null_and_are_strict_json(prepare: ModuleType, weather: pd.DataFrame) -> None:
    live = prepare.with_live_weather(flights_at(prepare, ("EWR", 0), ("EWR", 2)), weather)
    bodies = list(prepare.invocations(live))
    records = [body["dataframe_records"] for body in json.loads(json.dumps(bodies, allow_nan=False))]
    assert [len(rows) for rows in records] == [1, 1]
    assert [rows[0]["pressure"] for rows in records] == [1000.0, None]
    assert all(list(rows[0]) == prepare.FEATURES for rows in records)


def test_table_leaves_out_other_months_and_flights_that_never_arrived(
    prepare: ModuleType, weather: pd.DataFrame
) -> None:
    flights = flights_at(prepare, ("EWR", 0), ("JFK", 1), ("JFK", 2))
    flights.loc[1, "delayed"] = pd.NA
    flights.loc[2, "month"] = 2
    rows = prepare.table(prepare.with_archived_weather(flights, weather), [1])
    assert rows["flight_id"].tolist() == ["flight-0"]
    assert rows["delayed"].dtype == "int64"
    assert {str(rows[name].dtype) for name in prepare.FEATURES if name not in prepare.NAMES} == {"float64"}


def test_target_and_schedule_from_the_source_file(prepare: ModuleType, tmp_path: Path) -> None:
    source = pd.DataFrame(
        {
            "year": 2013, "month": 1, "day": 1, "carrier": "UA", "flight": [1, 2, 3, 4], "origin": "EWR",
            "dest": "ORD", "distance": 700, "hour": [6, 6, 6, 7], "minute": [0, 30, 59, 5],
            "time_hour": ["2013-01-01T11:00:00Z"] * 3 + ["2013-01-01T12:00:00Z"],
            "arr_delay": [15.0, 16.0, None, -20.0], "dep_delay": 99.0, "air_time": 100.0,
        }
    )  # fmt: skip
    source.to_csv(tmp_path / "flights.csv.zip", index=False)
    flights = prepare.read_flights(tmp_path)
    assert flights["delayed"].astype(object).where(flights["delayed"].notna(), None).tolist() == [
        0,
        1,
        None,
        0,
    ]
    assert flights["sched_dep_minutes"].tolist() == [360, 390, 419, 425]
    assert flights["hourly_departures"].tolist() == [3, 3, 3, 1]
    assert flights["day_of_week"].unique().tolist() == [1]
    assert flights["flight_id"].tolist()[0] == "20130101-EWR-UA1"
    assert not {"arr_delay", "dep_delay", "air_time"} & set(flights.columns)


def test_missing_package_is_one_clear_line(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install -r requirements\.txt"):
        prepare.source_folder()


def test_interrupted_write_leaves_the_old_table(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.parquet"
    prepare.write_parquet(path, pd.DataFrame({"a": [1]}))

    def torn(self: pd.DataFrame, target: Path, **options: object) -> None:
        target.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", torn)
    with pytest.raises(KeyboardInterrupt):
        prepare.write_parquet(path, pd.DataFrame({"a": [2]}))
    assert pd.read_parquet(path)["a"].tolist() == [1]
