"""What requests may hold: the signature's types, tensors of the Open Inference Protocol, the description of both."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import jsonschema
import pytest

from mlcicd.serving.server import v2
from mlcicd.serving.server.errors import RequestRefused
from mlcicd.serving.server.model import Model
from mlcicd.serving.server.questions import Request
from mlcicd.serving.server.signature import Table, frame_of

ROW = {"real": 1.5, "single": 0.5, "whole": 3, "big": 2**40, "flag": True, "word": "plain"}
pytestmark = pytest.mark.filterwarnings("ignore:.*Add type hints")
INFER = "/v2/models/toy/infer"


@pytest.fixture(scope="module")
def typed(models, launch):
    return launch(models / "types")


@pytest.fixture(scope="module")
def tree(models, launch):
    return launch(models / "tree")


@pytest.fixture(scope="module")
def model(models):
    return Model(models / "types", "toy", "1")


def _forms(rows):
    names = list(rows[0])
    return [
        {"dataframe_records": rows},
        {"dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in rows]}},
        {"inputs": {name: [row[name] for row in rows] for name in names}},
        {"instances": rows},
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [ROW],
        [ROW, ROW | {"real": -2, "flag": False}],
        [ROW | {"real": None}, ROW],
        [ROW | {"whole": 4.0}],
        [{name: ROW[name] for name in ROW if name != "word"}],
        [{name: ROW[name] for name in reversed(ROW)}],
    ],
)
def test_a_table_reaches_the_model_as_mlflow_would_hand_it_over(model, rows):
    """The frame made of checked columns is the one MLflow's own reading and enforcement end in."""
    enforce = importlib.import_module("mlflow.models.utils")._enforce_schema
    pd = importlib.import_module("pandas")
    for payload in _forms(rows):
        form = next(iter(payload))
        question = model._read(Request("invocations", json.dumps(payload).encode(), ""))
        assert isinstance(question.data, Table)
        theirs = enforce(model._invocations._by_mlflow(form, payload), model.schema)
        # An index of labels is what NumPy's strings of `inputs` leave: the values are compared.
        pd.testing.assert_frame_equal(frame_of(question.data), theirs, check_column_type=False)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("whole", 30.5, "column 'whole' takes whole numbers only"),
        ("big", 0.5, "column 'big' takes whole numbers only"),
        ("whole", 2**31, "takes whole numbers from -2147483648 to 2147483647"),
        ("big", 1e30, "takes whole numbers from"),
        ("flag", 2, "column 'flag' takes true and false only"),
        ("flag", "no", "column 'flag' takes true and false only"),
        ("flag", None, "column 'flag' takes true and false only"),
        ("real", 10**400, "column 'real' holds a number that is too large"),
        ("real", [1.0], "column 'real' takes one value a row"),
        ("word", {"secret": 1}, "column 'word' takes one value a row"),
    ],
)
def test_a_value_that_would_change_in_its_columns_type_is_refused(model, column, value, says):
    for payload in _forms([ROW, ROW | {column: value}]):
        with pytest.raises(RequestRefused, match=says) as refused:
            model._read(Request("invocations", json.dumps(payload).encode(), ""))
        assert refused.value.status == 400
        assert "secret" not in refused.value.message


def test_half_a_number_is_400_over_http_in_both_protocols(typed):
    good = typed.post({"dataframe_records": [ROW]})
    assert good.json()["predictions"][0]["types"].startswith("float64 float32 int32 int64 bool ")
    bad = typed.post({"dataframe_records": [ROW | {"whole": 30.5}]})
    assert bad.status_code == 400
    assert "whole numbers only" in bad.json()["message"]
    tensors = [
        {"name": name, "shape": [1], "datatype": kind, "data": [ROW[name]]}
        for name, kind in zip(ROW, ["FP64", "FP32", "FP64", "INT64", "BOOL", "BYTES"], strict=True)
    ]
    assert typed.post({"inputs": tensors}, path=INFER).status_code == 200
    tensors[2]["data"] = [30.5]
    assert typed.post({"inputs": tensors}, path=INFER).status_code == 400


@pytest.mark.parametrize("form", ["dataframe_records", "instances"])
def test_no_rows_are_400(tree, form):
    answer = tree.post({form: []})
    assert (answer.status_code, answer.json()["message"]) == (400, "the request has no rows")


def _tensor(**changes):
    return {"name": "rows", "shape": [1, 3], "datatype": "FP64", "data": [[1.0, 2.0, 3.0]]} | changes


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [_tensor(shape=[-1, 3])]},
        {"inputs": [_tensor(shape=[1.0, 3])]},
        {"inputs": [_tensor(shape=[2, 3])]},
        {"inputs": [_tensor(shape=[0, 3], data=[])]},
        {"inputs": [_tensor(shape=[2**64, 3], data=[])]},
        {"inputs": [_tensor(shape=[0, 2**64], data=[])]},
        {"inputs": [_tensor(shape=[*[1] * 32, 3])]},
        {"inputs": [_tensor(datatype="INT32", data=[1.5, 2, 3])]},
        {"inputs": [_tensor(datatype="INT8", data=[1000, 2, 3])]},
        {"inputs": [_tensor(datatype="FP64", data=["1.5", 2, 3])]},
        {"inputs": [_tensor(datatype="BOOL", data=[1, 0, 1])]},
        {"inputs": [_tensor(datatype=["FP64"])]},
        {"inputs": [_tensor(shape=[1, 1, 3])]},
        {"inputs": [_tensor(data=3)]},
        {"inputs": [_tensor(name="a", shape=[1], data=[1.0])] * 2},
        {"inputs": [_tensor(name=n, shape=[s], data=[1.0] * s) for n, s in (("a", 1), ("b", 1), ("c", 2))]},
        {"inputs": [_tensor()], "id": 3},
        {"inputs": [_tensor()], "parameters": []},
        {"inputs": [_tensor()], "outputs": [{"name": "no such"}]},
        {"inputs": [_tensor()], "outputs": [3]},
    ],
)
def test_tensors_that_are_not_what_they_say_are_400(tree, body):
    answer = tree.post(body, path=INFER)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


def test_the_product_of_an_endless_shape_is_not_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(v2, "math", SimpleNamespace(prod=lambda shape: taken.append(shape) or math.prod(shape)))
    for shape, data in (([9] * 200_000, [1.0]), ([1] * 200_000, [1.0]), ([9] * 200_000, []), ([2**64], [1.0])):
        with pytest.raises(RequestRefused, match="does not fit its shape"):
            v2._read_array(shape, "FP64", data)
    assert not taken
    assert v2._read_array([1, 3], "FP64", [1.0, 2.0, 3.0]).shape == (1, 3)
    assert taken


def test_infer_answers_as_invocations_does(tree):
    rows = [[0.1, -2.0, 3.0], [4.0, 0.5, 0.0]]
    split = {"dataframe_split": {"columns": ["a", "b", "c"], "data": rows}}
    expected = tree.post(split).json()["predictions"]
    asked = {
        "id": "mine",
        "inputs": [_tensor(shape=[2, 3], data=rows)],
        "outputs": [{"name": "predictions"}],
        "parameters": {"content_type": "pd"},
    }
    for path in (INFER, "/v2/models/toy/versions/7/infer"):
        assert tree.post(asked, path=path).json() == {
            "model_name": "toy",
            "model_version": "7",
            "id": "mine",
            "outputs": [{"name": "predictions", "shape": [2], "datatype": "FP64", "data": expected}],
        }
    assert tree.post(asked, path="/v2/models/toy/versions/8/infer").status_code == 404
    assert tree.post(asked, path="/v2/models/toy/versions/8/infer").json()["error"]
    assert tree.get("/v2/models/toy").json()["outputs"][0]["datatype"] == "FP64"


def test_the_description_says_what_is_taken(typed):
    described = typed.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/Invocation", "components": described["components"]}
    )
    for payload in _forms([ROW, ROW]):
        validator.validate(payload)
        assert typed.post(payload).status_code == 200
    for change in ({"whole": 30.5}, {"big": 2**63}, {"flag": "no"}):
        wrong = {"dataframe_records": [ROW | change]}
        assert not validator.is_valid(wrong)
        assert typed.post(wrong).status_code == 400
    assert schemas["Record"]["required"] == ["real", "single", "whole", "big", "flag"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["typed", "tree"])
def test_a_fuzz_of_the_description_finds_no_answer_outside_of_it(name, request, tmp_path):
    """Only checks of answers: JSON Schema can not say that lengths agree, and MLflow takes "1.5" for a number."""
    server = request.getfixturevalue(name)
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
        "response_schema_conformance,unsupported_method"
    )
    asked = ["run", f"{server.url}/openapi.json", "--checks", checks]
    bounds = ["--max-examples", "25", "--generation-deterministic", "--continue-on-failure", "--no-color"]
    code = "import sys; from schemathesis.cli import schemathesis; schemathesis(sys.argv[1:])"
    fuzzed = subprocess.run(
        [sys.executable, "-c", code, *asked, *bounds], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert fuzzed.returncode == 0, fuzzed.stdout[-4000:] + fuzzed.stderr[-1000:]
    assert "7 selected / 7 total" in fuzzed.stdout
    assert server.get("/ready").status_code == 200
