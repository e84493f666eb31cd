"""mlcicd.yaml: what is accepted, and what the errors say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcicd.config import load_project, seconds
from mlcicd.config.schema import json_schema
from mlcicd.core.errors import ConfigError, ExitCode, InputError

MINIMAL = """\
version: 1
model: {name: m, task: binary}
data: {train: a.csv, holdout: b.csv, target: y}
train: {run: python train.py}
"""


def load(folder: Path, text: str, **environ: str):
    (folder / "mlcicd.yaml").write_text(text, encoding="utf-8")
    return load_project(folder, environ=environ)


def error_of(folder: Path, text: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value


def test_minimal_has_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL).config
    assert config.register_.alias == "challenger"
    assert config.evaluate.no_champion == "bootstrap"
    assert list(config.deploy.environments) == ["production"]


def test_missing_file_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path, environ={})
    assert caught.value.where == "mlcicd.yaml"
    assert "init" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (MINIMAL + "evalute: {}\n", 5, "did you mean 'evaluate'?"),
        (MINIMAL + "evaluate:\n  gates:\n    roc_auc: {mim: 0.7}\n", 7, "did you mean 'min'?"),
        (MINIMAL + "evaluate:\n  gates:\n    roc_auc: {}\n", 7, "at least one of min, max, vs_champion"),
        (MINIMAL + "evaluate: {confidence: 2}\n", 5, "evaluate.confidence"),
        (MINIMAL + "canary: {steps: [50, 5]}\n", 5, "ascending"),
        (MINIMAL + "monitor:\n  windows: 1\n  violations: 2\n", 5, "could never fire"),
        (MINIMAL.replace("binary", "no"), 2, "truth value"),
        (MINIMAL.replace("version: 1", "version: 2"), 1, "version"),
        (MINIMAL.replace("target: y", "tagret: y"), 3, "did you mean 'target'?"),
        (MINIMAL + "version: 1\n", 5, "twice (first on line 1)"),
        (MINIMAL + "python: &a x\ntracking: {uri: *a}\n", 5, "aliases"),
        (MINIMAL + "python: !!python/name:os.system x\n", 5, "not read here"),
        (MINIMAL + "python: [\n", 6, "not valid YAML"),
        (MINIMAL + "evaluate: {gates: {roc_auc: {min: .nan}}}\n", 5, "evaluate.gates.roc_auc.min"),
        (MINIMAL + "canary: {window: soon}\n", 5, "canary.window"),
        (MINIMAL + "model.name: x\n", 5, "unknown key"),
    ],
)
def test_error_names_line_and_nearest_key(tmp_path: Path, text: str, line: int, said: str) -> None:
    error = error_of(tmp_path, text)
    assert said in f"{error.what}\n{error.why}"
    assert error.line == line
    assert error.one_line().startswith(f"mlcicd.yaml:{line}: ")


def test_all_problems_are_told(tmp_path: Path) -> None:
    error = error_of(tmp_path, MINIMAL + "evalute: {}\nmonitr: {}\n")
    assert "evaluate" in error.what
    assert "monitor" in error.why


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"a: \xe9\n", b"- 1\n", b"", b"x" * (1 << 21), b"a: " + b"[" * 5000])
def test_hostile_bytes_are_one_clear_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "mlcicd.yaml").write_bytes(raw)
    with pytest.raises(ConfigError):
        load_project(tmp_path, environ={})


def test_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "mlcicd.yaml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_project(tmp_path, environ={}).config.model.name == "m"


def test_environment_variables(tmp_path: Path) -> None:
    text = MINIMAL + 'tracking: {uri: "${URI:-sqlite:///x.db}"}\npython: $$HOME\n'
    assert load(tmp_path, text).config.tracking.uri == "sqlite:///x.db"
    assert load(tmp_path, text, URI="http://h").config.tracking.uri == "http://h"
    # As in a shell, `:-` also stands in for an empty variable: an unset `vars.X` of a workflow arrives as one.
    assert load(tmp_path, text, URI="").config.tracking.uri == "sqlite:///x.db"
    assert load(tmp_path, text).config.python == "$HOME"
    error = error_of(tmp_path, MINIMAL + "python: ${NOT_SET}\n")
    assert "NOT_SET" in error.what
    assert error.line == 5


def test_variable_can_not_add_keys(tmp_path: Path) -> None:
    text = MINIMAL + "python: ${P}\n"
    assert load(tmp_path, text, P="x\ntrain: {run: evil}").config.train.run == "python train.py"


def test_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + "canary: {alpha: 1e-3}\n").config.canary.alpha == 0.001


def test_profiles_override(tmp_path: Path) -> None:
    text = MINIMAL + "profiles: {prod: {train: {timeout: 1h}}}\n"
    (tmp_path / "mlcicd.yaml").write_text(text)
    project = load_project(tmp_path, profile="prod", environ={})
    assert project.config.train.timeout == "1h"
    assert project.config.train.run == "python train.py"
    with pytest.raises(ConfigError, match="did you mean 'prod'"):
        load_project(tmp_path, profile="prd", environ={})


def test_digest_follows_content_not_layout(tmp_path: Path) -> None:
    first = load(tmp_path, MINIMAL).digest
    assert load(tmp_path, "# comment\n" + MINIMAL).digest == first
    assert load(tmp_path, MINIMAL + "monitor: {cooldown: 1d}\n").digest != first


def test_relative_sqlite_is_in_the_project(tmp_path: Path) -> None:
    project = load(tmp_path, MINIMAL)
    assert project.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert project.artifact_location == (tmp_path / "mlartifacts").as_uri()


def test_missing_path_names_the_line_that_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, MINIMAL).path("a.csv", ("data", "train"))
    assert caught.value.where == "mlcicd.yaml:3"


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4),
        max_size=4,
    )
)
def test_any_mapping_is_a_config_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, mapping: dict) -> None:
    import yaml

    folder = tmp_path_factory.mktemp("any")
    (folder / "mlcicd.yaml").write_text(MINIMAL + yaml.safe_dump(mapping) if mapping else MINIMAL, encoding="utf-8")
    try:
        load_project(folder, environ={})
    except ConfigError as error:
        assert error.where.startswith("mlcicd.yaml")


def test_schema_agrees_with_the_models(tmp_path: Path) -> None:
    import jsonschema
    import yaml

    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(yaml.safe_load(MINIMAL))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(yaml.safe_load(MINIMAL + "evalute: {}\n"))


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("10s", 10), ("1.5m", 90), ("6h", 21600), ("7d", 604800)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected
