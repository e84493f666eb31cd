"""Ways around the scan that an attacker's review found. Every payload is harmless: `true`, or nothing at all."""

from __future__ import annotations

import functools
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from supply_chain import hostile_models as hostile
from supply_chain.test_supply_documents import ESCAPES, evaluation
from support import git

from mlcicd.core import errors
from mlcicd.core.errors import ConfigError, learn_secrets, redact
from mlcicd.supply_chain.card import model_card
from mlcicd.supply_chain.pickle_values import Allowance
from mlcicd.supply_chain.pickles import read_program
from mlcicd.supply_chain.policy import read_named, read_policy
from mlcicd.supply_chain.scanner import scan_model

OLD = b"cos\nsystem\n(Vtrue\ntR."


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def wrapper(shape: bytes) -> bytes:
    """joblib's wrapper of an array of bytes, without alignment: the array's bytes follow."""
    return (
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
        + short("subclass") + b"cnumpy\nndarray\n" + short("shape") + shape + b"\x85" + short("order") + short("C")
        + short("dtype") + b"cnumpy\ndtype\n" + short("u1") + b"\x85R" + short("allow_mmap") + b"\x89"
        + short("numpy_array_alignment_bytes") + b"Nub"
    )  # fmt: skip


def findings(tmp_path: Path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return "\n".join(finding.line() for finding in scan_model(path).findings)


def test_an_array_that_begins_within_a_frame_is_refused(tmp_path: Path) -> None:
    """joblib reads the array behind the frame; who skips it from within the frame is led past a program."""
    frame = wrapper(b"M" + struct.pack("<H", 256)) + b"N0" * 32
    swallow = b"B" + struct.pack("<I", 59 + len(OLD))
    stream = frame + b"\0" * 192 + swallow + b"\0" * 59 + OLD + b"0."
    content = b"\x80\x04\x95" + struct.pack("<Q", len(frame)) + stream
    assert "within a frame" in findings(tmp_path, "model.joblib", content)


def test_a_frame_that_lasts_longer_than_its_pickle_is_refused(tmp_path: Path) -> None:
    content = b"\x80\x04\x95" + struct.pack("<Q", 50) + b"N."
    assert "within a frame" in findings(tmp_path, "model.pkl", content)
    assert findings(tmp_path, "model.pkl", pickle.dumps([pickle.dumps([1]), "x" * 100_000], 4)) == ""


@pytest.mark.parametrize("loader", ["FunctionNode", "InventedNode"])
def test_older_protocols_and_names_in_other_keys_of_skops_are_refused(tmp_path: Path, loader: str) -> None:
    content = {"module_path": "posix", "function": "system"}
    schema = {"protocol": 0, **hostile.node("numpy", "add", loader, content=content)}
    said = findings(tmp_path, "model.skops", hostile.zipped({"schema.json": json.dumps(schema).encode()}))
    assert "protocol 0" in said
    assert "posix:system" in said
    assert ("loader" in said) is (loader == "InventedNode")


@pytest.mark.parametrize("key", ["stack_method_", "transform"])
def test_attributes_of_skops_are_judged_like_those_of_pickles(tmp_path: Path, key: str) -> None:
    value = {"stack_method_": hostile.json_node("write_text"),
             "transform": hostile.node("numpy", "max", "FunctionNode", content="max")}[key]  # fmt: skip
    state = hostile.node("builtins", "dict", "DictNode", content={key: value})
    model = hostile.node("sklearn.pipeline", "Pipeline", "ObjectNode", content=state)
    assert key in findings(tmp_path, "model.skops", hostile.skops(model))


def test_types_that_a_model_says_to_trust_are_judged(tmp_path: Path) -> None:
    flavor = {"loader_module": "mlflow.sklearn", "skops_trusted_types": ["numpy.dtype", "posix.system"]}
    hostile.mlflow_model(tmp_path / "m", json.dumps({"flavors": {"sklearn": flavor}}))
    (finding,) = scan_model(tmp_path / "m").findings
    assert "trusts posix.system" in finding.what


@pytest.mark.parametrize("magic", [b"CBM1" + b"A" * 64, b"(2", b"PAR1\nN", b"BINF"])
def test_magic_of_another_format_does_not_hide_a_pickle(tmp_path: Path, magic: bytes) -> None:
    """Import by name and an item of what was imported: no call, and no end."""
    program = magic + b"0cos\nenviron\nVX\nVtrue\ns0cantigravity\nfly\n\0"
    said = findings(tmp_path, "model.pkl", program)
    assert said
    if magic.startswith(b"CBM1"):
        assert "os:environ" in said
        assert "no plain container" in said


@pytest.mark.parametrize("fill", [b"VX\nVtrue\ns", b"(VX\nVtrue\nu", b"Na", b"(Ne", b"(N\x90"])
def test_only_containers_are_filled(tmp_path: Path, fill: bytes) -> None:
    said = findings(tmp_path, "model.pkl", b"\x80\x04cnumpy\nndarray\n" + fill + b".")
    assert "no plain container" in said


def test_a_list_of_words_is_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "columns.txt").write_text("carrier\norigin\ndest\n")
    assert scan_model(tmp_path).clean


def state(**attributes: object) -> bytes:
    from sklearn.ensemble import StackingClassifier

    model = StackingClassifier([])
    vars(model).update(attributes)
    return pickle.dumps(model, 4)


@pytest.mark.parametrize(
    "attributes",
    [
        {"stack_method_": ["eval"]},
        {"stack_method_": "write_text"},
        {"_response_method": "eval"},
        {"transform": np.max},
        {"fit": int},
        {"_cmp_method": functools.partial(int)},
        {"predict": functools.partial(int)},
        {"func": functools.partial(functools.partial)},
        {"importance_getter": "coef_.__class__"},
        {"importance_getter": np.abs},
    ],
)
def test_attributes_that_would_be_called(tmp_path: Path, attributes: dict[str, object]) -> None:
    assert findings(tmp_path, "model.pkl", state(**attributes))


@pytest.mark.parametrize(
    "attributes",
    [
        {"stack_method_": ["predict_proba", "decision_function"]},
        {"func": np.abs},
        {"dtype": np.float64},
        {"score_func": functools.partial(np.abs)},
        {"importance_getter": "named_steps.model.coef_"},
        {"importance_getter": None},
    ],
)
def test_attributes_that_models_have(tmp_path: Path, attributes: dict[str, object]) -> None:
    assert findings(tmp_path, "model.pkl", state(**attributes)) == ""


def test_a_list_of_methods_that_grows_later_counts(tmp_path: Path) -> None:
    program = (
        b"\x80\x04csklearn.ensemble._stacking\nStackingClassifier\n)\x81}" + short("stack_method_") + b"]q\x05sb"
        b"h\x05" + short("eval") + b"a0."
    )
    assert "stack_method_" in findings(tmp_path, "model.pkl", program)


def test_a_computed_attribute_is_refused(tmp_path: Path) -> None:
    key = b"cbuiltins\nstr\n(" + short("stack_method_") + b"tR"
    program = b"\x80\x04csklearn.pipeline\nPipeline\n)\x81}" + key + short("eval") + b"sb."
    assert "computed" in findings(tmp_path, "model.pkl", program)


def test_paths_are_not_reviewed(tmp_path: Path) -> None:
    assert "pathlib" in findings(tmp_path, "model.pkl", pickle.dumps(Path("x")))


def test_a_manifest_that_others_read_otherwise_is_refused(tmp_path: Path) -> None:
    merged = "flavors:\n  python_function:\n    <<: {loader_module: evil}\n"
    large = hostile.MLMODEL + "#" * (1 << 20) + "\n    loader_module: evil\n"
    for number, (text, said) in enumerate([(merged, "merge key"), (large, "larger")]):
        hostile.mlflow_model(tmp_path / str(number), text)
        assert said in scan_model(tmp_path / str(number)).summary()


def test_a_layer_behind_the_first_megabyte_is_seen(tmp_path: Path) -> None:
    model = {"padding": "x" * (2 << 20), "module": "keras", "class_name": "Sequential", "config": hostile.LAMBDA}
    assert "Lambda" in findings(tmp_path, "model.json", json.dumps(model).encode())


@pytest.mark.parametrize("descr", ["'O,O'", "'i4,O'", "[('a', 'O,O')]", "'(2,)O'", "[('a', [('b', '|O')])]"])
def test_arrays_with_objects_by_any_spelling(tmp_path: Path, descr: str) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + OLD
    assert "posix:system" in findings(tmp_path, "x.npy", content) or "os:system" in findings(tmp_path, "x.npy", content)


def test_arrays_of_numbers_are_let_through(tmp_path: Path) -> None:
    for array in (
        np.zeros(3, "u4"),
        np.zeros(2, [("a", "<i8"), ("b", "u1", (2,))]),
        np.array(["x"]),
        np.zeros(1, "M8[ns]"),
    ):
        assert findings(tmp_path, "x.npy", hostile.npy(array)) == ""


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
@pytest.mark.parametrize("magic", [b"PAR1\n", b"CBM1\n", b"binf\n", b"#!x\n"])
def test_requirements_are_read_whatever_their_first_bytes(tmp_path: Path, name: str, magic: bytes) -> None:
    assert "--index-url" in findings(tmp_path, name, magic + b"--index-url http://evil.example\n")


# --- the policy


ALLOWS = "globals: [{name: 'a:b', owner: me, reason: ours}]\n"


def test_a_policy_counts_as_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "model-policy.yaml"
    path.write_text(ALLOWS)
    assert "no git repository" in read_policy(path, shown="model-policy.yaml").note
    git(tmp_path, "init", "-q")
    with pytest.raises(ConfigError, match="no commit"):
        read_policy(path, shown="model-policy.yaml")
    path.write_text("formats: [skops]\n")
    assert read_policy(path, shown="model-policy.yaml").policy.formats == ["skops"]
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "policy")
    assert read_policy(path, shown="model-policy.yaml").note == ""
    path.write_text(ALLOWS)
    git(tmp_path, "update-index", "--assume-unchanged", "model-policy.yaml")
    with pytest.raises(ConfigError, match="as it stands"):
        read_policy(path, shown="model-policy.yaml")
    path.unlink()
    with pytest.raises(ConfigError, match="as it stands"):
        read_policy(path, shown="model-policy.yaml")
    (tmp_path / "else.yaml").write_text(ALLOWS)
    path.symlink_to("else.yaml")
    with pytest.raises(ConfigError, match="symbolic link"):
        read_policy(path, shown="model-policy.yaml")


@pytest.mark.parametrize("glob", ["*", "**", "**/*", "?*", "*.*", "[!~]*"])
def test_a_rule_for_every_file_is_refused(tmp_path: Path, glob: str) -> None:
    path = tmp_path / "model-policy.yaml"
    path.write_text(f"files: [{{path: '{glob}', owner: me, reason: ours}}]\n")
    with pytest.raises(ConfigError, match="every file"):
        read_policy(path, shown="model-policy.yaml")
    path.write_text(f"files: [{{path: '{glob}', owner: me, reason: ours, sha256: '{'0' * 64}'}}]\n")
    assert read_policy(path, shown="model-policy.yaml").policy.files


# --- time


def test_many_arrays_are_read_twice_within_bounds() -> None:
    """Not by the clock: what is read a second time comes out of one allowance."""
    allowance = Allowance()
    content = b"\x80\x04" + (wrapper(b"K\0") + b"0") * 3_000 + b"N."
    program = read_program(content, 0, allowance)
    assert "more arrays" in program.error
    assert allowance.left > -(len(content) + 10_000)


def test_openers_without_an_end_cost_no_more_than_their_length() -> None:
    written = "x" + "<!-- mlcicd:summary -->" * 200_000
    card = model_card(written, name="n", task="binary", evaluation=evaluation(), served=[], escapes=ESCAPES)
    assert card.endswith(written)


# --- secrets


def test_each_line_of_a_key_is_redacted() -> None:
    body = ["MC4CAQAwBQYDK2VwBCIEIPlantedPlantedPlanted", "Second0Line1Of2The3Key", "ab=="]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *body, "certificate", "-----END PRIVATE KEY-----"])
    before = set(errors._LITERALS)
    try:
        learn_secrets({"MLCICD_PRIVATE_KEY": key})
        assert redact(f"at {body[0]}: {body[1]}") == "at ***: ***"
        assert redact("a certificate -----BEGIN PRIVATE KEY-----") == "a certificate -----BEGIN PRIVATE KEY-----"
        assert redact(f"[{key}]") == "[***]"
    finally:
        errors._LITERALS.clear()
        errors._LITERALS.update(before)


@pytest.mark.parametrize("how", ["filter", "encoding", "replaced commit", "replaced blob"])
def test_settings_of_a_clone_do_not_hide_a_changed_policy(repository: Path, how: str) -> None:
    """Who can write into `.git`, as training code can, makes git say that nothing has changed."""
    from mlcicd.core.git import Kept, kept

    policy = repository / "model-policy.yaml"
    policy.write_bytes(b"formats: [skops]\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "policy")
    assert kept(policy) is Kept.COMMITTED
    policy.write_bytes(b"formats: [skops]\r\n")
    assert kept(policy) is Kept.COMMITTED
    evil = "formats: [pickle]\n"
    if how == "filter":
        (repository / "kept").write_bytes(b"formats: [skops]\n")
        git(repository, "config", "filter.same.clean", "cat kept")
        (repository / ".git" / "info" / "attributes").write_text("*.yaml filter=same\n")
    elif how == "encoding":
        # What git reads as UTF-7 is `formats: [skops]`, and as UTF-8 it has another meaning.
        evil = "formats: +AFs-skops]\n"
        (repository / ".git" / "info" / "attributes").write_text("*.yaml working-tree-encoding=UTF-7\n")
    policy.write_text(evil)
    if how.startswith("replaced"):
        before = git(repository, "rev-parse", "HEAD")
        old = git(repository, "rev-parse", "HEAD:model-policy.yaml")
        git(repository, "commit", "--quiet", "--all", "--message", "evil")
        after, new = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD:model-policy.yaml")
        git(repository, "reset", "--quiet", "--soft", before)
        git(repository, "replace", *((before, after) if how == "replaced commit" else (old, new)))
    assert kept(policy) is Kept.CHANGED


def test_environments_as_mlflow_writes_them_are_let_through(tmp_path: Path) -> None:
    conda = b"""channels:
- conda-forge
dependencies:
- python=3.11.7
- pip<=25
- pip:
  - mlflow==3.1
name: mlflow-env
"""
    flavors = {"python_function": {"loader_module": "mlflow.sklearn"}}
    hostile.mlflow_model(tmp_path / "m", json.dumps({"flavors": flavors}))
    (tmp_path / "m" / "conda.yaml").write_bytes(conda)
    (tmp_path / "m" / "python_env.yaml").write_text(
        "python: 3.11.7\nbuild_dependencies:\n- pip==25\n- setuptools\ndependencies:\n- -r requirements.txt\n"
    )
    assert scan_model(tmp_path / "m").findings == []


@pytest.mark.parametrize("how", ["other content", "linked file", "linked folder", "never committed"])
def test_a_key_that_is_not_the_committed_one_is_refused(repository: Path, how: str) -> None:
    """The policy is as it was reviewed, and so is what it names: else the next best key could sign as `ci`."""
    keys, elsewhere = repository / "keys", repository / "elsewhere"
    keys.mkdir()
    (keys / "ci.pub").write_text("the reviewed key")
    (repository / "model-policy.yaml").write_text("signers: [{name: ci, key: keys/ci.pub}]\n")
    git(repository, "add", "model-policy.yaml", *([] if how == "never committed" else ["keys"]))
    git(repository, "commit", "-qm", "policy")
    rules = read_policy(repository / "model-policy.yaml", shown="model-policy.yaml")

    def read() -> bytes:
        return read_named(rules, repository, "keys/ci.pub", shown="model-policy.yaml", what="the key")

    if how != "never committed":
        assert read() == b"the reviewed key"
    if how == "other content":
        (keys / "ci.pub").write_text("the key of somebody else")
    elif how == "linked file":
        (keys / "ci.pub").rename(elsewhere)
        (keys / "ci.pub").symlink_to(elsewhere)
    elif how == "linked folder":
        keys.rename(elsewhere)
        keys.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="not committed as it stands"):
        read()


def test_a_policy_behind_a_linked_folder_is_refused(repository: Path, tmp_path: Path) -> None:
    """Git would be asked of the place behind the link, where nothing is committed and nothing was reviewed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model-policy.yaml").write_text("files: [{path: model.pkl, owner: me, reason: none}]\n")
    (repository / "ci").symlink_to(outside)
    with pytest.raises(ConfigError, match="symbolic link"):
        read_policy(repository / "ci" / "model-policy.yaml", shown="ci/model-policy.yaml")
