"""export: the gates of a converted model, and that a failing one leaves nothing in place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from click.testing import CliRunner

from mlcicd.cli import cli
from mlcicd.core.digests import digest_file
from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.stages import export, register

from .conftest import change, project_at

pytestmark = pytest.mark.slow


@pytest.fixture
def registered(evaluated: Path) -> Path:
    assert register(project_at(evaluated)).status is Status.PASSED
    return evaluated


def test_an_export_is_the_model_and_a_failing_gate_leaves_what_was_there(registered: Path) -> None:
    options = ["export", "-C", str(registered), "--output", "edge/model.onnx", "--alias", "challenger"]
    run = CliRunner().invoke(cli, options)
    assert run.exit_code == 0, run.output
    file = registered / "edge" / "model.onnx"
    rows = pd.read_csv(registered / "holdout.csv")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    asked = {name: rows[[name]].to_numpy(np.float32) for name in ("a", "b")}
    answered = session.run(["probabilities"], asked)[0]
    assert session.get_modelmeta().custom_metadata_map["mlcicd.version"] == "1"
    assert ((answered[:, 1] > 0.5) == (rows["a"] > 0)).mean() > 0.9
    lineage = json.loads((registered / "edge" / "model.onnx.lineage.json").read_text())
    assert (lineage["output"]["digest"], lineage["measured"]["rows"]) == (digest_file(file), 1500)
    verdict = json.loads((registered / ".mlcicd" / "verdicts" / "export.json").read_text())
    assert {check["name"]: check["status"] for check in verdict["checks"] if "version" not in check["name"]} == {
        "agreement": "passed",
        "size": "passed",
        "latency": "passed",
    }

    before = file.read_bytes()
    change(
        registered / "mlcicd.yaml", "deploy:\n", "export: {tolerance: 0, agreement: 1, size_ratio: 1.0e-6}\ndeploy:\n"
    )
    failed = export(project_at(registered), output="edge/model.onnx", alias="challenger")
    assert (failed.status, failed.exit_code) == (Status.FAILED, 1)
    bad = {check.name: check.reason for check in failed.checks if check.status is CheckStatus.FAILED}
    assert set(bad) == {"agreement", "size"}
    assert "of 1,500 rows differ" in bad["agreement"]
    assert file.read_bytes() == before
    assert sorted(p.name for p in file.parent.iterdir()) == ["model.onnx", "model.onnx.lineage.json"]

    whole = export(project_at(registered), output="small.onnx", alias="challenger", quantize=True)
    assert (whole.exit_code, "nothing in this model can be quantized" in whole.summary) == (4, True)
    assert not (registered / "small.onnx").exists()
    assert export(project_at(registered), output="model.txt", alias="challenger").exit_code == 2
