"""Envelopes and statements: ours against securesystemslib's verifier, and every byte changed once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.supply_chain.provenance import Facts, check_statement, statement
from mlcicd.supply_chain.signing import PublicKey, read_private_key, read_public_key, sign, verify

FACTS = Facts(
    "tiny", {"command": "python train.py"}, {"data/train": "sha256:" + "0" * 64}, "a" * 40, "b", "c", "d", "e"
)
DOCUMENTS = {"evaluate.json": b'{"status": "passed"}', "train.json": b"{}"}


def pem(key: Any) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


def private_pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public(key: Any) -> PublicKey:
    return read_public_key(pem(key), where="key.pub", signer="ci")


@pytest.fixture(params=["ed25519", "ecdsa"])
def key(request: pytest.FixtureRequest) -> Any:
    if request.param == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "model.pkl").write_bytes(b"\x80\x04N.")
    return folder


def test_securesystemslib_verifies_what_we_sign_and_we_what_it_signs(key: Any, model: Path) -> None:
    envelope = sign(statement(model, DOCUMENTS, FACTS), key)
    theirs = SSlibKey.from_crypto(key.public_key())
    assert Envelope.from_dict(json.loads(envelope)).verify([theirs], 1) == {theirs.keyid: theirs}
    payload, signer = verify(envelope, {public(key).keyid: public(key)})
    assert signer.signer == "ci"
    assert json.loads(payload)["_type"] == "https://in-toto.io/Statement/v1"


def test_securesystemslib_refuses_a_changed_payload(key: Any) -> None:
    document = json.loads(sign(b'{"a": 1}', key))
    document["payload"] = "eyJhIjogMn0="
    with pytest.raises(VerificationError):
        Envelope.from_dict(document).verify([SSlibKey.from_crypto(key.public_key())], 1)


def test_any_byte_of_an_envelope(key: Any, model: Path) -> None:
    envelope = sign(statement(model, DOCUMENTS, FACTS), key)
    keys = {public(key).keyid: public(key)}
    verify(envelope, keys)
    rng = random.Random(3)
    for position in range(len(envelope)):
        for value in {rng.randrange(256), 0x20, 0x0A, envelope[position] ^ 1} - {envelope[position]}:
            changed = envelope[:position] + bytes([value]) + envelope[position + 1 :]
            with pytest.raises(InputError):
                verify(changed, keys)
    for cut in (0, 1, len(envelope) // 2, len(envelope) - 1):
        with pytest.raises(InputError):
            verify(envelope[:cut], keys)
    with pytest.raises(InputError):
        verify(envelope + b"\n", keys)


def test_any_byte_of_model_and_verdicts(model: Path) -> None:
    payload = statement(model, DOCUMENTS, FACTS)
    assert check_statement(payload, model=model, tree="", documents=DOCUMENTS) == 1 + 2 + 2
    for path in (model / "MLmodel", model / "data" / "model.pkl"):
        whole = path.read_bytes()
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
            with pytest.raises(InputError):
                check_statement(payload, model=model, tree="", documents=DOCUMENTS)
        path.write_bytes(whole)
    for name, content in DOCUMENTS.items():
        for position in range(len(content)):
            changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
            with pytest.raises(InputError, match=name):
                check_statement(payload, model=model, tree="", documents={**DOCUMENTS, name: changed})


@pytest.mark.parametrize("change", ["missing", "more", "file", "tree"])
def test_what_is_missing_or_too_much(model: Path, change: str) -> None:
    payload = statement(model, DOCUMENTS, FACTS)
    documents, tree = dict(DOCUMENTS), ""
    if change == "missing":
        del documents["train.json"]
    elif change == "more":
        documents["deploy.json"] = b"{}"
    elif change == "file":
        (model / "extra.py").write_text("")
    else:
        tree = "sha256:" + "1" * 64
    with pytest.raises(InputError):
        check_statement(payload, model=None if tree else model, tree=tree, documents=documents)


def test_another_signer_and_nobody(key: Any) -> None:
    envelope = sign(b"{}", key)
    stranger = public(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(InputError, match="no trusted key"):
        verify(envelope, {stranger.keyid: stranger})
    # A stranger's key under the signer's name.
    with pytest.raises(InputError, match="not of this content"):
        verify(envelope, {public(key).keyid: PublicKey(public(key).keyid, stranger.key, "ci")})
    document = json.loads(envelope)
    document["signatures"] = []
    empty = (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode()
    with pytest.raises(InputError, match="nobody"):
        verify(empty, {public(key).keyid: public(key)})


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"null", b'{"_type": "x"}', b"\xff", b"[" * 100_000])
def test_what_is_no_statement(payload: bytes, model: Path) -> None:
    with pytest.raises(InputError):
        check_statement(payload, model=model, tree="", documents={})


def test_keys_that_are_not_taken_and_never_shown() -> None:
    large = rsa.generate_private_key(65537, 2048)
    encrypted = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    broken = private_pem(ed25519.Ed25519PrivateKey.generate()).replace("A", "!", 1)
    for text in (private_pem(large), encrypted.decode(), broken, "", "MC4CAQAwBQYDK2VwBCIEIHRoaXNJc1NlY3JldA=="):
        with pytest.raises(ConfigError) as error:
            read_private_key(text, where="MLCICD_PRIVATE_KEY")
        body = "".join(text.splitlines()[1:2])
        assert not body or body not in str(error.value) + error.value.detail()
    with pytest.raises(ConfigError):
        read_public_key(pem(large), where="x")
    with pytest.raises(ConfigError):
        read_public_key("nothing", where="x")
