"""report: one page of the verdicts so far; and the library's door."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import mlcicd
from mlcicd import Status, evaluate, load_project, stages
from mlcicd.stages import report

from .conftest import project_at


def test_one_page_of_all_verdicts(evaluated: Path) -> None:
    verdict = report(project_at(evaluated))
    assert verdict.status is Status.PASSED
    page = (evaluated / ".mlcicd" / "report.html").read_text()
    assert all(stage in page for stage in ("validate-data", "train", "evaluate"))
    assert "roc_auc" in (evaluated / ".mlcicd" / "report.md").read_text()
    assert verdict.evidence[0].path == ".mlcicd/report.html"


def test_nothing_to_report(root: Path) -> None:
    assert report(project_at(root)).exit_code == 4


def test_the_library_says_nothing_and_does_not_exit(evaluated: Path, capfd) -> None:
    verdict = evaluate(load_project(evaluated))
    assert verdict.status == "passed"
    captured = capfd.readouterr()
    assert captured.out == ""


def test_weak_spots_and_flips_inform_and_block_nothing(evaluated: Path) -> None:
    verdict = evaluate(project_at(evaluated))
    assert isinstance(verdict.details["weakest_slices"], list)
    assert verdict.details["figures"]
    again = evaluate(project_at(evaluated), model="model")
    assert again.status == verdict.status


@pytest.mark.parametrize("name", stages.__all__)
def test_a_stages_name_is_its_function_whatever_was_imported_before(name: str) -> None:
    module = "pipeline" if name == "run" else name
    importlib.import_module(f"mlcicd.stages.{module}")
    assert callable(getattr(stages, name))


@pytest.mark.parametrize("name", mlcicd.__all__)
def test_every_export_is_there(name: str) -> None:
    assert getattr(mlcicd, name)
