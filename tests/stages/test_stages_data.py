"""validate-data and monitor on a small project."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.data.infer import infer_schema
from mlcicd.data.source import open_source
from mlcicd.stages import monitor, register, validate_data
from mlcicd.stages.common import registry_of

from .conftest import change, project_at, write_table


def names(verdict, status: CheckStatus) -> list[str]:
    return [check.name for check in verdict.checks if check.status is status]


def test_good_data_passes(root: Path) -> None:
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.PASSED
    assert (root / ".mlcicd" / "evidence" / "profile.json").is_file()


def test_schema_violation_fails_with_the_row(root: Path) -> None:
    (root / "schema.yaml").write_text("version: 1\ncolumns:\n  a: {type: float, max: 100}\n")
    change(root / "mlcicd.yaml", "target: y,", "target: y, schema: schema.yaml,")
    assert validate_data(project_at(root)).status is Status.PASSED
    with (root / "train.csv").open("a") as file:
        file.write("99,1000.5,0.1,1\n")
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.FAILED
    failed = next(c for c in verdict.checks if c.status is CheckStatus.FAILED)
    assert failed.name == "train.a.range"
    assert "1000.5" in str(failed.model_dump())


def test_a_small_holdout_passes_the_schema_inferred_from_the_training_data(root: Path) -> None:
    write_table(root / "holdout.csv", 200, 2)
    (root / "schema.yaml").write_text(infer_schema(open_source(root / "train.csv")))
    change(root / "mlcicd.yaml", "target: y,", "target: y, schema: schema.yaml,")
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.PASSED, verdict.summary
    change(root / "schema.yaml", "holdout: {min: 1}", "holdout: {min: 201}")
    assert names(validate_data(project_at(root)), CheckStatus.FAILED) == ["holdout.rows"]
    change(root / "schema.yaml", "holdout: {min: 201}", "holdout: {min: 1}")
    change(root / "schema.yaml", "min: 400", "min: 801")
    assert names(validate_data(project_at(root)), CheckStatus.FAILED) == ["train.rows"]


def test_a_column_called_as_a_key_of_the_schema_is_told_the_keys_of_columns(root: Path) -> None:
    (root / "schema.yaml").write_text("version: 1\ncolumns:\n  holdout: {tpye: float}\n")
    change(root / "mlcicd.yaml", "target: y,", "target: y, schema: schema.yaml,")
    verdict = validate_data(project_at(root))
    assert "did you mean 'type'" in verdict.summary, verdict.summary


def test_misspelled_schema_key_names_its_line(root: Path) -> None:
    (root / "schema.yaml").write_text("version: 1\ncolumns:\n  a: {tpye: float}\n")
    change(root / "mlcicd.yaml", "target: y,", "target: y, schema: schema.yaml,")
    verdict = validate_data(project_at(root))
    assert verdict.exit_code == 2
    assert "schema.yaml:3" in verdict.summary


def test_holdout_rows_in_the_training_data_fail(root: Path) -> None:
    change(root / "mlcicd.yaml", "ignore: [id]}", "ignore: [id], checks: {leakage: {keys: [id]}}}")
    assert validate_data(project_at(root)).status is Status.PASSED
    lines = (root / "train.csv").read_text().splitlines()
    with (root / "holdout.csv").open("a") as file:
        file.write("\n".join(lines[1:200]) + "\n")
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.FAILED
    assert any(name.startswith("leakage.keys") for name in names(verdict, CheckStatus.FAILED))


def test_missing_target_is_told(root: Path) -> None:
    change(root / "mlcicd.yaml", "target: y,", "target: label,")
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.FAILED
    assert "no column 'label'" in verdict.summary


@pytest.mark.parametrize(
    ("label", "said"), [("", "have no label"), ("2", "3 different labels"), ("nan", "different labels")]
)
def test_labels_are_looked_at_before_training(root: Path, label: str, said: str) -> None:
    with (root / "train.csv").open("a") as file:
        file.write(f"99,0.5,0.1,{label}\n")
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.FAILED
    assert said in verdict.summary or "no label" in verdict.summary


def test_new_data_without_labels_has_not_drifted(with_champion: Path) -> None:
    lines = (with_champion / "train.csv").read_text().splitlines()
    (with_champion / "now.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    verdict = monitor(project_at(with_champion), data="now.csv")
    assert verdict.outputs["drifted-columns"] == "", verdict
    assert verdict.outputs["breached"] == "false"


def test_failing_prepare_command(root: Path) -> None:
    change(root / "mlcicd.yaml", "target: y,", "target: y, prepare: echo no data >&2; exit 7,")
    verdict = validate_data(project_at(root))
    assert verdict.exit_code == 1
    assert verdict.details["error"]["log"] == ["no data"]


@pytest.fixture
def with_champion(evaluated: Path) -> Path:
    project = project_at(evaluated)
    assert register(project).status is Status.PASSED
    registry_of(project).set_alias("tiny", "champion", "1")
    return evaluated


def test_the_same_world_is_no_breach(with_champion: Path) -> None:
    verdict = monitor(project_at(with_champion))
    assert verdict.status is Status.PASSED, verdict
    assert verdict.outputs["breached"] == "false"
    assert verdict.outputs["action"] == "none"


def drift_the_world(root: Path) -> None:
    write_table(root / "now.csv", 1000, 9)
    lines = (root / "now.csv").read_text().splitlines()
    moved = [lines[0]]
    for line in lines[1:]:
        number, a, b, y = line.split(",")
        moved.append(f"{number},{float(a) + 3},{b},{y}")
    (root / "now.csv").write_text("\n".join(moved) + "\n")


def test_a_moved_column_is_a_breach_that_names_it(with_champion: Path) -> None:
    drift_the_world(with_champion)
    verdict = monitor(project_at(with_champion), data="now.csv")
    assert verdict.status is Status.FAILED
    assert verdict.exit_code == 1
    assert verdict.outputs == {"breached": "true", "action": "retrain", "drifted-columns": "a"}


def test_ignored_breach_still_tells(with_champion: Path) -> None:
    drift_the_world(with_champion)
    verdict = monitor(project_at(with_champion), data="now.csv", ignore_breach=True)
    assert verdict.exit_code == 0
    assert verdict.outputs["breached"] == "true"


def test_cooldown_holds_the_second_breach_back_and_lives_in_the_registry(with_champion: Path) -> None:
    drift_the_world(with_champion)
    assert monitor(project_at(with_champion), data="now.csv").outputs["breached"] == "true"
    with (with_champion / "now.csv").open("a") as file:
        file.write("1,3.0,0.0,1\n")
    again = monitor(project_at(with_champion), data="now.csv")
    assert again.outputs["breached"] == "false"


def test_dry_run_leaves_no_trace(with_champion: Path) -> None:
    drift_the_world(with_champion)
    for _ in range(2):
        assert monitor(project_at(with_champion), data="now.csv", dry_run=True).outputs["breached"] == "true"


def test_no_champion_is_an_input_error(root: Path) -> None:
    verdict = monitor(project_at(root))
    assert verdict.exit_code == 4
    assert "no champion" in verdict.summary


def test_a_misspelled_ignored_column_is_told(root: Path) -> None:
    change(root / "mlcicd.yaml", "ignore: [id]", "ignore: [idd]")
    verdict = validate_data(project_at(root))
    check = next(c for c in verdict.checks if c.name == "data.ignore idd")
    assert check.status is CheckStatus.FAILED
    assert "did you mean 'id'" in check.reason


def with_checks(root: Path, checks: str) -> None:
    change(root / "mlcicd.yaml", "ignore: [id]}", f"ignore: [id], checks: {{{checks}}}}}")


def test_further_checks_against_the_champion(with_champion: Path) -> None:
    with_checks(
        with_champion,
        "rows: {max_ratio: 1.5}, constant: {}, personal: {}, labels: {}, sources: {column: b}, "
        "serving: {examples: smoke.jsonl}, population: {file: holdout.csv, columns: [y]}",
    )
    verdict = validate_data(project_at(with_champion))
    assert verdict.status is Status.PASSED, verdict
    assert {"rows of train against last time", "constant", "personal", "labels", "population.y", "serving.columns"} <= {
        check.name for check in verdict.checks if check.status is CheckStatus.PASSED
    }
    lines = (with_champion / "train.csv").read_text().splitlines()
    (with_champion / "train.csv").write_text("\n".join([lines[0], *lines[1:301]]) + "\n")
    assert names(validate_data(project_at(with_champion)), CheckStatus.FAILED) == ["rows of train against last time"]


def test_rows_against_the_last_data_that_passed(root: Path) -> None:
    with_checks(root, "rows: {against: last}")
    first = validate_data(project_at(root))
    assert names(first, CheckStatus.SKIPPED) == ["rows against last time"]
    write_table(root / "holdout.csv", 100, 3)
    for _ in range(2):  # what failed is no measure for the next
        second = validate_data(project_at(root))
        assert names(second, CheckStatus.FAILED) == ["rows of holdout against last time"]
        assert "100 rows, and 1,500" in second.summary


def test_sensitive_categories_are_hashes_in_the_profile(root: Path) -> None:
    (root / "schema.yaml").write_text("version: 1\ncolumns:\n  y: {sensitive: true}\n  s: {sensitive: true}\n")
    change(root / "mlcicd.yaml", "target: y,", "target: y, schema: schema.yaml,")
    for name in ("train.csv", "holdout.csv"):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join([f"{lines[0]},s", *(f"{line},whisper" for line in lines[1:])]) + "\n")
    assert validate_data(project_at(root)).status is Status.PASSED
    assert "whisper" not in (root / ".mlcicd" / "evidence" / "profile.json").read_text()


JOINT = "drift: {reference: train, max: 0.2, multivariate: 0.6, correlations: 0.3, slices: [s], action: fail}"


def with_slices(root: Path) -> None:
    """A column `s` of two sites; and checks of rows, correlations and slices."""
    for name in ("train.csv", "holdout.csv"):
        lines = (root / name).read_text().splitlines()
        rows = [f"{line},{'north' if number % 2 else 'south'}" for number, line in enumerate(lines[1:])]
        (root / name).write_text("\n".join([f"{lines[0]},s", *rows]) + "\n")
    with_checks(root, JOINT)


def test_rows_correlations_and_slices_of_one_world_pass(root: Path) -> None:
    with_slices(root)
    verdict = validate_data(project_at(root))
    assert verdict.status is Status.PASSED, verdict
    found = [(c.name, c.slice) for c in verdict.checks if c.name.startswith("drift ")]
    assert found == [
        ("drift of rows", ""),
        ("drift of correlations", ""),
        ("drift within s", "north"),
        ("drift within s", "south"),
    ]
    assert verdict.details["figures"][0]["title"] == "Columns by how far they moved"


def test_a_slice_that_moved_is_named_where_the_whole_did_not(root: Path) -> None:
    with_slices(root)
    lines = (root / "holdout.csv").read_text().splitlines()
    mirrored = [lines[0]]
    for line in lines[1:]:
        number, a, b, y, s = line.split(",")
        # One site sends only the upper half of `b`, the other only the lower.
        value = abs(float(b)) if s == "north" else -abs(float(b))
        mirrored.append(f"{number},{a},{value},{y},{s}")
    (root / "holdout.csv").write_text("\n".join(mirrored) + "\n")
    verdict = validate_data(project_at(root))
    failed = [c for c in verdict.checks if c.status is CheckStatus.FAILED]
    assert [(c.name, c.slice) for c in failed] == [
        ("drift of rows", ""),
        ("drift within s", "north"),
        ("drift within s", "south"),
    ]
    assert all(c.details["columns"] == ["b"] for c in failed[1:]) and "'b': js" in failed[1].reason
