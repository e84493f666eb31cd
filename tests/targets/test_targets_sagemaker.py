"""The target `mlflow` with MLflow's own plug-in for SageMaker, against moto's server over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "sagemaker_world.py"


@pytest.mark.slow
def test_a_version_is_deployed_to_sagemaker_tested_promoted_and_removed(tmp_path):
    # In a process of its own: an address and credentials that boto3 reads from the environment, and moto's server.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        env={**clean, **nowhere},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["tested"] == {"other-1": "InService", "flights--v1": "InService"}
    assert seen["answer"] == [200, {"predictions": [4.0]}]
    assert seen["promoted"] == {"other-1": "InService", "flights": "InService"}
    assert seen["status"] == ["1", None, True]
    # The model that SageMaker is given is the one that was registered, and whose digest was compared.
    assert seen["model"] == ["MLmodel", "factor"]
    # moto has no UpdateEndpoint: the second version's promotion fails with its words, and nothing is lost.
    assert "the plug-in could not update flights" in seen["refused"] and "UpdateEndpoint" in seen["refused"]
    assert seen["after_refusal"] == ["flights", "flights--v2"]
    assert seen["foreign"].startswith("a deployment other-1 is there that mlcicd did not make here")
    assert seen["stopped"] == ["other-1"]
    # What the plug-in had uploaded for the update that failed, it leaves.
    assert len(seen["left_in_bucket"]) == 1
