"""The scanner on malicious and genuine models, on damaged ones, and with a policy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from supply_chain import hostile_models as hostile

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.supply_chain.pickles import read_program
from mlcicd.supply_chain.policy import Policy, Rules, read_policy, reviewed
from mlcicd.supply_chain.scanner import scan_model

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def malicious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "models"
    hostile.write_all(folder)
    return folder


def test_every_malicious_model_is_refused_and_nothing_of_it_is_imported(malicious: Path) -> None:
    before = set(sys.modules)
    missed = [path.name for path in sorted(malicious.iterdir()) if scan_model(path).clean]
    assert missed == []
    assert len(list(malicious.iterdir())) >= 70
    assert not {"webbrowser", "antigravity", "this", "pty", "cProfile"} & (set(sys.modules) - before)


@pytest.mark.slow
def test_every_genuine_model_is_let_through(tmp_path: Path) -> None:
    folder = tmp_path / "genuine"
    subprocess.run([sys.executable, str(HERE / "genuine_models.py"), str(folder)], check=True, capture_output=True)
    refused = {path.name: scan.summary() for path in sorted(folder.iterdir()) if not (scan := scan_model(path)).clean}
    assert refused == {}
    assert len(list(folder.iterdir())) >= 60


def test_a_finding_says_the_name_the_place_and_how_to_allow_it(malicious: Path) -> None:
    (finding,) = scan_model(malicious / "zip-in-zip.zip").findings
    assert finding.where == "zip-in-zip.zip!a.zip!b.zip!model.pkl"
    assert "posix:system" in finding.what
    assert finding.allow.startswith('globals: [{name: "posix:system"')


def test_a_program_in_the_bytes_of_an_array_is_found() -> None:
    """joblib reads these bytes as numbers, and its stream is whole; `pickle.load` would run them."""
    program = read_program(hostile.files()["array-program.joblib"])
    assert program.error == ""
    assert ("os", "system") in {(name.module, name.name) for name in program.names}


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_cut_anywhere_is_refused(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps({"a": [1.5, "x", (1, 2)], "b": np.arange(5.0)}, protocol)
    path = tmp_path / "model.pkl"
    path.write_bytes(whole)
    assert scan_model(path).clean
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        assert not scan_model(path).clean, cut


def test_the_names_are_those_that_pickle_itself_takes(tmp_path: Path) -> None:
    """The machine against Python's own unpickler, on programs that were made at random."""
    rng = random.Random(5)
    pieces = [
        hostile.text("os"), hostile.text("builtins"), hostile.text("dict"), hostile.text("OrderedDict"),
        hostile.text("collections"), b"\x94", b"h\x00", b"h\x01", b"h\x02", b"\x93", b"(", b"t", b"R", b"0", b"2", b"}",
        b"]", b")", b"\x85", b"\x86", b"s", b"u", b"a", b"e", b"b", b"\x81", b"K\x07", b"ccollections\nOrderedDict\n",
        b"q\x03", b"h\x03", b"1", b"N", b"\x88", b"d", b"l", b"o", b"ibuiltins\nlist\n", b"S'dict'\n", b"Vlist\n",
    ]  # fmt: skip
    taken: list[tuple[str, str]] = []

    class Recorder(pickle._Unpickler):  # type: ignore[name-defined]
        def find_class(self, module: str, name: str) -> object:
            taken.append((module, name))
            return super().find_class(module, name) if module in ("builtins", "collections") else dict

    seen = 0
    for _ in range(20_000):
        taken.clear()
        program = b"\x80\x04" + b"".join(rng.choice(pieces) for _ in range(rng.randint(3, 25))) + b"."
        # What it raises is its own affair: what was taken before counts.
        with contextlib.suppress(Exception):
            Recorder(io.BytesIO(program)).load()
        found = read_program(program)
        names = {(n.module, n.name) for n in found.names}
        unseen = {item for item in taken if item not in names}
        assert not unseen or found.problems, (program, unseen)
        seen += len(taken)
    assert seen > 1_000


def test_random_bytes_never_break_the_scanner(tmp_path: Path) -> None:
    rng = random.Random(9)
    samples = list(hostile.files().items())
    for number in range(600):
        name, content = rng.choice(samples)
        if len(content) > 100_000:
            continue
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(bytes(damaged))
        scan_model(path)


def test_a_policy_allows_by_name_by_file_and_by_digest(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.pkl").write_bytes(hostile.call("features", "Ratio", "x"))
    (model / "code.py").write_text("x = 1\n")
    policy = tmp_path / "model-policy.yaml"
    policy.write_text(
        "globals: [{name: 'features:Ratio', owner: data team, reason: our transformer}]\n"
        "files: [{path: '*.py', owner: data team, reason: our code}]\n"
    )
    assert len(scan_model(model).findings) == 2
    allowed = scan_model(model, read_policy(policy, shown="model-policy.yaml"))
    assert allowed.clean
    assert "1 let through unread by the policy: code.py" in allowed.summary()
    digest = hashlib.sha256(b"x = 1\n").hexdigest()
    rule = {"path": "code.py", "owner": "a", "reason": "b"}
    for sha256, clean in ((digest, True), ("0" * 64, False)):
        (model / "model.pkl").unlink(missing_ok=True)
        assert scan_model(model, Rules(Policy(files=[{**rule, "sha256": sha256}]))).clean is clean


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("globals: [{name: 'a:b', reason: x}]", "owner"),
        ("globals: [{name: 'a:b', owner: x, reason: ''}]", "reason"),
        ("globals: [{name: 'a.*', owner: x, reason: y}]", "name"),
        ("formats: [pikle]", "formats"),
        ("globls: []", "globals"),
        ("- a", "mapping"),
    ],
)
def test_a_policy_that_is_wrong_is_an_error_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "model-policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_policy(path, shown="model-policy.yaml")
    assert said in error.value.one_line()
    assert error.value.where.startswith("model-policy.yaml")


def test_a_whole_module_does_not_allow_dotted_names() -> None:
    rules = Rules(Policy(globals=[{"name": "features:*", "owner": "a", "reason": "b"}]))
    assert rules.names("features", "Ratio")
    assert not rules.names("features", "os.system")
    assert not rules.names("features.sub", "Ratio")


def test_formats_can_be_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(hostile.GOOD)
    assert scan_model(path).clean
    assert "formats" in scan_model(path, Rules(Policy(formats=["skops"]))).summary()


def test_what_is_not_on_the_reviewed_list() -> None:
    listed = reviewed()
    assert len(listed) > 150
    for module, name in [
        ("builtins", "getattr"), ("builtins", "eval"), ("builtins", "type"), ("operator", "attrgetter"),
        ("numpy", "load"),
        ("numpy._core", "_ufunc_reconstruct"), ("joblib", "load"), ("pandas", "read_pickle"), ("os", "system"),
        ("pickle", "loads"), ("torch.storage", "_load_from_bytes"),
    ]:  # fmt: skip
        assert name not in listed.get(module, ())
    assert not [name for names in listed.values() for name in names if "." in name]


def test_nothing_there_and_a_link(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        scan_model(tmp_path / "nothing")
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(InputError):
        scan_model(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    assert [finding.where for finding in scan_model(tmp_path).findings] == ["link", "pipe"]
