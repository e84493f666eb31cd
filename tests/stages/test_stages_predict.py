"""predict: a table scored with a registered model that was verified first, and the lineage of what was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mlcicd.cli import cli
from mlcicd.core.digests import digest_file
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Status
from mlcicd.data import source
from mlcicd.stages import evaluate, predict, promote, register
from mlcicd.stages.common import registry_of
from mlcicd.stages.predict import session_of

from .conftest import change, project_at

pytestmark = pytest.mark.slow


@pytest.fixture
def champion(evaluated: Path) -> Path:
    for stage in (register, promote):
        assert stage(project_at(evaluated)).status is Status.PASSED
    return evaluated


def ask(root: Path, **options: str) -> object:
    return predict(project_at(root), **{"input": "holdout.csv", "output": "scores.parquet", "keys": "id", **options})


def test_predictions_with_lineage_that_the_evaluation_reads(champion: Path) -> None:
    verdict = ask(champion, batch_rows=400)  # type: ignore[arg-type]
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details)
    assert verdict.outputs["rows"] == "1500"
    version = registry_of(project_at(champion)).version_at("tiny", "champion")
    lineage = json.loads((champion / "scores.parquet.lineage.json").read_text())
    assert (lineage["model"]["version"], lineage["model"]["digest"]) == ("1", version.digest)
    assert lineage["data"]["digest"] == digest_file(champion / "holdout.csv")
    assert lineage["output"]["digest"] == digest_file(champion / "scores.parquet")
    assert verdict.subject("predictions", "output").digest == lineage["output"]["digest"]
    made = pd.read_parquet(champion / "scores.parquet")
    assert made["id"].tolist() == pd.read_csv(champion / "holdout.csv")["id"].tolist()
    before = evaluate(project_at(champion))
    # The configured names of columns are those of `evaluate --predictions`: what is written can be judged.
    change(champion / "mlcicd.yaml", "evaluate:\n", "evaluate:\n  predictions: {keys: [id]}\n")
    judged = evaluate(project_at(champion), predictions="scores.parquet")
    assert {before.status, judged.status} <= {Status.PASSED, Status.FAILED}, (before.summary, judged.details)
    observed = [next(c.observed for c in v.checks if "roc_auc" in c.name) for v in (before, judged)]
    assert observed[0] == pytest.approx(observed[1], abs=1e-12)

    again = ask(champion)
    assert again.status is Status.PASSED, "pieces of another size are another request"
    assert ask(champion).status is Status.SKIPPED
    (champion / "scores.parquet").write_bytes(b"changed")
    assert ask(champion).status is Status.PASSED, "a file that was changed is written again"


def test_an_input_that_is_written_right_after_its_digest_gives_no_output(
    champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = champion / "holdout.csv"

    def digest_and_write(files: tuple[Path, ...]) -> str:
        digest = digest_file(files[0])
        with table.open("a") as file:
            file.write("9,0.5,0.5,1\n")
        return digest

    monkeypatch.setattr(source, "digest_files", digest_and_write)
    verdict = ask(champion)
    assert (verdict.exit_code, "changed while it was read" in verdict.summary) == (4, True), verdict  # type: ignore[attr-defined]
    assert not list(champion.glob("scores*"))


def test_the_command_line_refuses_what_deploy_refuses(champion: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        done = CliRunner().invoke(
            cli, ["predict", "-C", str(champion), "--input", "holdout.csv", "--output", "scores.csv", *options]
        )
        return done.exit_code, done.output

    code, said = run("--dry-run")
    assert code == 0, said
    assert "would score 1,500 rows" in said
    assert run("--alias", "nobody")[0] == 4
    assert run("--alias", "champion", "--model-version", "1")[0] == 2
    assert run("--keys", "nothing")[0] == 2
    assert run("--timeout", "soon")[0] == 2
    registry = registry_of(project_at(champion))
    registry.create_version("tiny", registry.version("tiny", "1").run_id, {})
    code, said = run("--model-version", "2")
    assert (code, "nobody has let it through" in said) == (1, True), said
    change(champion / "mlcicd.yaml", "deploy:\n", "supply_chain: {policy: p.yaml}\ndeploy:\n")
    key = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    (champion / "key.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n")
    (champion / "p.yaml").write_text("signers: [{name: ann, key: key.pem}]\n")
    code, said = run()
    assert (code, "not signed" in said) == (1, True), said
    (champion / "p.yaml").unlink()
    model = next((champion / "mlartifacts").rglob("MLmodel"))
    model.write_text(model.read_text() + "# changed\n")
    shutil.rmtree(champion / ".mlcicd" / "cache")
    code, said = run()
    assert (code, "not the one that was recorded" in said) == (4, True), said
    assert not (champion / "scores.csv").exists()


def test_an_answer_that_is_nan_fails_closed(champion: Path) -> None:
    table = pd.read_csv(champion / "holdout.csv")
    table.loc[7, "a"] = np.inf
    table.to_csv(champion / "rows.csv", index=False)
    verdict = ask(champion, input="rows.csv")
    # scikit-learn itself refuses infinity: the rows are named.
    assert verdict.exit_code == 1
    assert "rows 0 to 1499" in verdict.summary
    assert not (champion / "scores.parquet").exists()


def test_spark_is_asked_for_by_the_option_or_the_configuration_and_reads_parquet(tmp_path: Path) -> None:
    base = "version: 1\nmodel: {name: toy, task: binary}\ntrain: {run: python t.py}\n"
    data = "data: {train: t.parquet, holdout: h.parquet, target: y, spark: {master: 'local[2]'}"
    rows = pd.DataFrame({"a": [1.0]})
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "mlcicd.yaml").write_text(f"{base}{data}}}\n")
    here, parquet = project_at(tmp_path), source.open_source(tmp_path / "rows.parquet")
    session = {"master": "local[2]", "options": {}}
    assert session_of(here, parquet, "") is None and session_of(here, parquet, "spark") == session
    (tmp_path / "mlcicd.yaml").write_text(f"{base}{data}, engine: spark}}\n")
    there = project_at(tmp_path)
    assert session_of(there, parquet, "") == session and session_of(there, parquet, "local") is None
    with pytest.raises(ConfigError, match="on Spark, predict reads Parquet"):
        session_of(there, source.open_source(tmp_path / "rows.csv"), "")
