"""Keyless signatures: the package sigstore signs and verifies for real, against a Sigstore on loopback."""

from __future__ import annotations

import json
import random
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from stages.conftest import project_at
from support import git

from mlcicd.cli import cli
from mlcicd.core.errors import ConfigError, InputError, ServiceError
from mlcicd.core.process import user_environment
from mlcicd.core.verdict import Status, Verdict
from mlcicd.stages import deploy, register
from mlcicd.supply_chain.keyless import (
    Identity,
    Root,
    Services,
    embedded_root,
    read_root,
    sign_keyless,
    signed_by,
    verify_keyless,
)

pytest.importorskip("sigstore")

from supply_chain.sigstore_server import IDENTITY, ISSUER, REPOSITORY, REQUEST_TOKEN, Sigstore, running_sigstore

SIGNER = Identity(IDENTITY, ISSUER, "cd")
STATEMENT = json.dumps(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "tiny", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
    }
).encode()


@pytest.fixture
def sigstore(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sigstore]:
    """A running Sigstore, and the environment of a job that may ask for an identity."""
    with running_sigstore() as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def root_of(sigstore: Sigstore) -> Root:
    return read_root(sigstore.trusted_root().encode(), where="trusted_root.json")


def bundle_of(sigstore: Sigstore, payload: bytes = STATEMENT) -> bytes:
    return sign_keyless(payload, Services(sigstore.url, sigstore.url), root_of(sigstore))


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_what_is_signed_verifies_without_a_network(sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(6):
        bundle = bundle_of(sigstore)
    root = root_of(sigstore)
    assert sigstore.seen[-3:] == ["/token", "/api/v2/signingCert", "/api/v1/log/entries"]
    no_network(monkeypatch)
    stranger = Identity(IDENTITY.replace("main", "feature"), ISSUER, "no")
    assert verify_keyless(bundle, [stranger, SIGNER], root) == (STATEMENT, SIGNER)
    assert signed_by(bundle, root) == (STATEMENT, Identity(IDENTITY, ISSUER, repository=REPOSITORY))


def test_any_byte_of_a_bundle(sigstore: Sigstore) -> None:
    for _ in range(3):
        bundle = bundle_of(sigstore)
    root, draw = root_of(sigstore), random.Random(5)
    # Every byte of what only the log vouches for, and a sample of the others.
    log = range(bundle.index(b'"inclusionPromise"'), len(bundle))
    for position in [*log, *draw.sample(range(log.start), 300)]:
        value = draw.choice([bundle[position] ^ 1, bundle[position] ^ 0x20, draw.randrange(256), 0x20, 0x41])
        changed = bundle[:position] + bytes([value]) + bundle[position + 1 :]
        if changed == bundle:
            continue
        with pytest.raises(InputError, match="does not hold"):
            verify_keyless(changed, [SIGNER], root)


def test_base64_that_means_the_same_is_refused(sigstore: Sigstore) -> None:
    """The bits behind the last byte mean nothing, and are read by nobody."""
    bundle, root = bundle_of(sigstore), root_of(sigstore)
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    places = [match.start() for match in re.finditer(rb'[A-Za-z0-9+/]={1,2}"', bundle)]
    assert places
    for place in places:
        other = letters[letters.index(bundle[place : place + 1]) ^ 1]
        with pytest.raises(InputError, match="does not hold"):
            verify_keyless(bundle[:place] + bytes([other]) + bundle[place + 1 :], [SIGNER], root)


def test_what_the_log_did_not_sign_is_compared_with_what_it_signed(sigstore: Sigstore) -> None:
    """A proof for 3 entries is one for 4, too, and the log's name is in its signed text and beside its signature."""
    bundle, root = bundle_of(sigstore), root_of(sigstore)
    for old, new in ((b'"treeSize":"3"', b'"treeSize":"4"'), (b"u2014 rekor.", b"u2014 other.")):
        assert bundle.count(old) == 1
        with pytest.raises(InputError, match="not the one that its checkpoint was signed for"):
            verify_keyless(bundle.replace(old, new), [SIGNER], root)


def test_something_else_than_a_statement_is_refused(sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    from sigstore import dsse

    monkeypatch.setattr(dsse.Envelope, "_TYPE", "text/plain")
    with pytest.raises(InputError, match="something else than an in-toto statement"):
        verify_keyless(bundle_of(sigstore), [SIGNER], root_of(sigstore))


def test_a_bundle_has_one_form(sigstore: Sigstore) -> None:
    bundle, root = bundle_of(sigstore), root_of(sigstore)
    document = json.loads(bundle)
    forms = [
        bundle.rstrip(b"\n"),
        json.dumps(document).encode(),
        bundle.replace(b'{"dsse', b'{"a":1,"dsse', 1),
        bundle.replace(b'"signatures":[{', b'"signatures":[{"keyid":"a",', 1),
        b"[]\n",
        b'"\xff"',
        b"[" * 100_000,
        b" " * (17 << 20),
    ]
    for form in forms:
        with pytest.raises(InputError, match="does not hold"):
            verify_keyless(form, [SIGNER], root)


@pytest.mark.parametrize("what", ["identity", "issuer"])
def test_somebody_else_is_refused(sigstore: Sigstore, what: str) -> None:
    asked = Identity(IDENTITY + "x", ISSUER) if what == "identity" else Identity(IDENTITY, ISSUER + "/")
    with pytest.raises(InputError, match="no trusted identity signed it") as raised:
        verify_keyless(bundle_of(sigstore), [asked], root_of(sigstore))
    assert IDENTITY in str(raised.value)


def test_a_reusable_workflow_that_another_repository_calls_is_refused(sigstore: Sigstore) -> None:
    bundle, root = bundle_of(sigstore), root_of(sigstore)
    ours = Identity(IDENTITY, ISSUER, "cd", REPOSITORY)
    assert verify_keyless(bundle, [replace(ours, repository=REPOSITORY + "-fork"), ours], root)[1] == ours
    with pytest.raises(InputError, match="no trusted identity signed it") as raised:
        verify_keyless(bundle, [replace(ours, repository=REPOSITORY + "-fork")], root)
    assert f"in {REPOSITORY} " in str(raised.value)


def test_another_sigstore_is_refused(sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same names: certificates, the certificate log and Rekor, each with keys of its own."""
    bundle = bundle_of(sigstore)
    ours = json.loads(sigstore.trusted_root())
    with running_sigstore() as other:
        theirs = json.loads(other.trusted_root())
    for part in ("certificateAuthorities", "ctlogs", "tlogs"):
        mixed = read_root(json.dumps({**ours, part: theirs[part]}).encode(), where="root")
        with pytest.raises(InputError, match="does not hold"):
            verify_keyless(bundle, [SIGNER], mixed)
    no_network(monkeypatch)
    # The public root needs none either, and does not know this one.
    with pytest.raises(InputError, match="does not hold"):
        verify_keyless(bundle, [SIGNER], embedded_root())


def test_a_signature_after_the_certificate_has_ended_is_refused(sigstore: Sigstore) -> None:
    whole = sigstore.authority.certify

    def ended(public: Any, identity: str, issuer: str) -> list[str]:
        return whole(public, identity, issuer, timedelta(seconds=-1))

    sigstore.authority.certify = ended  # type: ignore[method-assign]
    bundle: list[bytes] = []
    try:
        bundle.append(bundle_of(sigstore))
    except ServiceError:
        return  # refused already when signing
    with pytest.raises(InputError, match="does not hold"):
        verify_keyless(bundle[0], [SIGNER], root_of(sigstore))


@pytest.mark.parametrize("path", ["/token", "/api/v2/signingCert", "/api/v1/log/entries"])
def test_a_service_that_refuses_is_named(sigstore: Sigstore, path: str) -> None:
    sigstore.fault = path
    with pytest.raises(ServiceError) as raised:
        bundle_of(sigstore)
    said = f"{raised.value} {raised.value.detail()}"
    assert ("503" if "api" in path else "403") in said
    assert REQUEST_TOKEN not in said


def test_a_job_without_an_identity_is_told_what_to_grant(sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    with pytest.raises(ConfigError) as raised:
        bundle_of(sigstore)
    assert "`permissions` write `id-token`" in raised.value.remedy
    assert not sigstore.seen


def test_without_the_package_the_extra_is_named(sigstore: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore", None)
    for call in (embedded_root, lambda: read_root(b"{}", where="root")):
        with pytest.raises(ConfigError) as raised:
            call()
        assert "mlcicd[sigstore]" in raised.value.remedy


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"mediaType": "x"}', b"\xff"], ids=str)
def test_what_is_no_trusted_root_is_told(content: bytes) -> None:
    with pytest.raises(ConfigError, match="not a trusted root"):
        read_root(content, where="trusted_root.json")


def test_the_users_code_can_not_ask_for_the_identity(sigstore: Sigstore) -> None:
    theirs = user_environment({**sigstore.environment(), "SIGSTORE_ID_TOKEN": "x", "KEPT": "1"}, sys.executable, {})
    assert not [name for name in theirs if "ID_TOKEN" in name]
    assert theirs["KEPT"] == "1"


# --- in the stages

POLICY = """\
signers:
  - name: cd
    identity: {identity}
    issuer: {issuer}
sigstore: {{trusted_root: trusted_root.json}}
"""


def configure(root: Path, sigstore: Sigstore, identity: str = IDENTITY) -> None:
    (root / "trusted_root.json").write_text(sigstore.trusted_root())
    (root / "model-policy.yaml").write_text(POLICY.format(identity=identity, issuer=ISSUER))


def registered(root: Path, sigstore: Sigstore) -> Verdict:
    """Registers as a job whose configuration names these services; the evaluated configuration stays as it is."""
    project = project_at(root)
    own = Services(sigstore.url, sigstore.url)
    settings = type(project.config.supply_chain.sigstore)(sign=True, fulcio=own.fulcio, rekor=own.rekor)
    chain = project.config.supply_chain.model_copy(update={"sigstore": settings})
    return register(replace(project, config=project.config.model_copy(update={"supply_chain": chain})))


@pytest.fixture
def signed(evaluated: Path, sigstore: Sigstore) -> Path:
    configure(evaluated, sigstore)
    verdict = registered(evaluated, sigstore)
    assert verdict.status is Status.PASSED, verdict
    (check,) = [check for check in verdict.checks if check.name == "keyless signature"]
    assert check.status == "passed"
    assert IDENTITY in str(check.observed)
    return evaluated


def stored(root: Path) -> Path:
    """The bundle in the registry's folder of evidence."""
    (path,) = (root / "mlartifacts").rglob("provenance.sigstore.json")
    return path


def refusals(root: Path) -> list[str]:
    verdict = deploy(project_at(root), dry_run=True)
    return [f"{c.name}: {c.reason}" for c in verdict.checks if c.status == "failed"]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, list(arguments))
    return done.exit_code, done.output


def flip(path: Path, at: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


@pytest.mark.slow
def test_deploy_and_verify_take_what_the_identity_of_the_policy_signed(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, model = stored(signed).parent, signed / "model"
    offline = ["--model", str(model), "--evidence", str(evidence), "--trusted-root", str(signed / "trusted_root.json")]
    offline += ["--issuer", ISSUER, "--identity"]
    no_network(monkeypatch)
    assert refusals(signed) == []
    code, said = run("verify", "-C", str(signed), "--model-version", "1")
    assert (code, "signed by cd" in said) == (0, True), said
    code, said = run("verify", *offline, IDENTITY)
    assert (code, IDENTITY in said) == (0, True), said
    assert run("verify", *offline, IDENTITY, "--repository", REPOSITORY)[0] == 0
    assert run("verify", *offline, IDENTITY, "--repository", REPOSITORY + "-fork")[0] == 4
    assert run("verify", *offline, IDENTITY + "x")[0] == 4
    assert run("verify", *offline[:-1])[0] == 2
    flip(model / "MLmodel", 5)
    code, said = run("verify", *offline, IDENTITY)
    assert (code, "model" in said) == (4, True), said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate.json", "bom.cdx.json", "provenance.sigstore.json"])
def test_deploy_refuses_a_flipped_byte(signed: Path, name: str) -> None:
    path = stored(signed).parent / name
    flip(path, path.stat().st_size // 2)
    (said,) = [line for line in refusals(signed) if "signature" in line]
    assert "signature of version 1" in said


@pytest.mark.slow
def test_deploy_refuses_another_identity_and_what_is_not_signed(signed: Path, sigstore: Sigstore) -> None:
    configure(signed, sigstore, IDENTITY.replace("cd.yml", "pr.yml"))
    (said,) = refusals(signed)
    assert "no trusted identity signed it" in said
    configure(signed, sigstore)
    stored(signed).unlink()
    (said,) = refusals(signed)
    assert "not signed (there is no provenance.sigstore.json)" in said


@pytest.mark.slow
def test_registered_again_the_bundle_stays_and_a_stranger_s_does_not(signed: Path, sigstore: Sigstore) -> None:
    first = stored(signed).read_bytes()
    asked = len(sigstore.seen)
    assert registered(signed, sigstore).status is Status.SKIPPED
    assert stored(signed).read_bytes() == first
    assert len(sigstore.seen) == asked
    # A bundle of the same statement by somebody else does not stay.
    sigstore.identity = IDENTITY.replace("main", "stranger")
    stored(signed).write_bytes(bundle_of(sigstore, signed_by(first, root_of(sigstore))[0]))
    assert any("no trusted identity" in line for line in refusals(signed))
    sigstore.identity = IDENTITY
    assert registered(signed, sigstore).status is Status.SKIPPED
    assert refusals(signed) == []


@pytest.mark.slow
def test_register_warns_of_an_identity_that_the_policy_does_not_name(evaluated: Path, sigstore: Sigstore) -> None:
    configure(evaluated, sigstore)
    sigstore.identity = IDENTITY.replace("main", "feature")
    verdict = registered(evaluated, sigstore)
    assert verdict.status is Status.PASSED
    (check,) = [check for check in verdict.checks if check.name == "keyless signature"]
    assert (check.status, "no signer of the policy" in check.reason) == ("failed", True)
    assert any("no trusted identity" in line for line in refusals(evaluated))


@pytest.mark.slow
def test_a_trusted_root_that_is_not_the_committed_one_is_refused(signed: Path, sigstore: Sigstore) -> None:
    """Who can replace the root, or the folder that it is in, could sign as anybody."""
    git(signed, "add", "trusted_root.json", "model-policy.yaml")
    git(signed, "commit", "-qm", "policy")
    assert refusals(signed) == []
    with running_sigstore() as other:
        (signed / "trusted_root.json").write_text(other.trusted_root())
    verdict = deploy(project_at(signed), dry_run=True)
    assert verdict.status is Status.ERROR
    assert "the trusted root of Sigstore is not committed as it stands" in verdict.summary


def test_a_sigstore_of_ones_own_needs_its_root(root: Path, sigstore: Sigstore) -> None:
    from mlcicd.stages.supply_signing import root_of as root_of_project

    text = (root / "mlcicd.yaml").read_text()
    own = f"supply_chain: {{sigstore: {{sign: true, fulcio: '{sigstore.url}', rekor: '{sigstore.url}'}}}}\n"
    (root / "mlcicd.yaml").write_text(text + own)
    with pytest.raises(ConfigError, match="not known by the public one's root"):
        root_of_project(project_at(root))
    for wrong in ("{fulcio: 'https://a.example'}", "{fulcio: 'http://a.example', rekor: 'https://b.example'}"):
        (root / "mlcicd.yaml").write_text(text + f"supply_chain: {{sigstore: {wrong}}}\n")
        with pytest.raises(ConfigError):
            project_at(root)
