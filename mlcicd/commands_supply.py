"""Commands of the supply chain: look into a model without loading it, verify what was signed, write the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import FOLDER, plainly

if TYPE_CHECKING:
    from mlcicd.stages.supply_signing import Signers
    from mlcicd.supply_chain.keyless import Identity


@cli.command("scan")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--policy", default="model-policy.yaml", show_default=True, help="The policy file; none need be there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@plainly
def scan(model: Path, policy: str, as_json: bool) -> None:
    """Look into a model's folder or file without loading it; exit code 1 when anything is not on the reviewed list."""
    from mlcicd.core.errors import ExitCode
    from mlcicd.supply_chain.policy import read_policy
    from mlcicd.supply_chain.scanner import scan_model

    found = scan_model(model, read_policy(Path(policy), shown=policy))
    if as_json:
        findings = [{"where": f.where, "what": f.what, "name": f.name, "allow": f.allow} for f in found.findings]
        document = {"files": found.files, "bytes": found.size, "globals": sorted(found.names), "findings": findings}
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in found.findings:
            click.echo(finding.line())
            if finding.allow:
                click.echo(f"    to allow it, in {policy}: {finding.allow}")
        click.echo("refused" if found.findings else f"nothing to refuse: {found.summary()}")
    if found.findings:
        raise SystemExit(int(ExitCode.GATE_FAILED))


@cli.command("verify")
@FOLDER
@click.option("--model-version", default="", help="Version in the registry, verified with the signers of the policy.")
@click.option("--model", type=click.Path(path_type=Path), help="A model's folder, instead of a version.")
@click.option("--evidence", type=click.Path(path_type=Path), help="Folder of its verdicts and its signatures.")
@click.option("--key", type=click.Path(path_type=Path), help="The signer's public key (PEM).")
@click.option("--identity", default="", help="The signer's keyless identity, with --issuer, instead of a key.")
@click.option("--issuer", default="", help="Who vouches for the identity.")
@click.option("--repository", default="", help="Repository whose workflow ran; any when left out.")
@click.option(
    "--trusted-root",
    type=click.Path(path_type=Path),
    help="Root (JSON) of the Sigstore that the identity signed with; the public one's when left out.",
)
@click.option(
    "--fetch",
    type=click.Path(path_type=Path),
    help="New folder for the version's `model` and `evidence` from the artifact repository.",
)
@plainly
def verify(
    working_directory: Path,
    model_version: str,
    model: Path | None,
    evidence: Path | None,
    key: Path | None,
    identity: str,
    issuer: str,
    repository: str,
    trusted_root: Path | None,
    fetch: Path | None,
) -> None:
    """Verify who signed a model and its verdicts, and that no byte has changed; with --model, without a network."""
    from mlcicd.core.errors import ConfigError
    from mlcicd.supply_chain.keyless import Identity

    keyless = bool(identity and issuer)
    by_name = not any((model, evidence, key, identity, issuer, repository, trusted_root))
    half = bool(identity) != bool(issuer) or bool((trusted_root or repository) and not keyless)
    if model is not None and evidence is not None and keyless != (key is not None) and not half and fetch is None:
        signers = _named_signers(key, Identity(identity, issuer, repository=repository), trusted_root)
        _verify_offline(model, evidence, signers)
    elif model_version and by_name:
        _verify_version(working_directory, model_version, fetch)
    else:
        raise ConfigError(
            "say what to verify",
            remedy="--model-version VERSION alone, which goes by the signers of the policy; "
            "or --model FOLDER with --evidence FOLDER, and --key FILE or --identity NAME and --issuer URL",
        )


def _named_signers(key: Path | None, identity: Identity, trusted_root: Path | None) -> Signers:
    """The one signer that the options name."""
    from mlcicd.stages.supply_signing import Signers
    from mlcicd.supply_chain.keyless import embedded_root, read_root
    from mlcicd.supply_chain.signing import read_public_key

    if key is not None:
        public = read_public_key(_content(key).decode("utf-8", "replace"), where=str(key), signer=key.name)
        return Signers({public.keyid: public}, (), embedded_root)
    root = embedded_root() if trusted_root is None else read_root(_content(trusted_root), where=str(trusted_root))
    return Signers({}, (identity,), lambda: root)


def _content(path: Path) -> bytes:
    from mlcicd.core.errors import InputError

    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"it can not be read ({error.strerror})", where=str(path)) from error


def _verify_offline(model: Path, evidence: Path, signers: Signers) -> None:
    from mlcicd.core.errors import InputError
    from mlcicd.stages.supply_signing import SIGNED, verify_signatures

    for path in (model, evidence):
        if not path.exists():
            raise InputError("it is not there", where=str(path))

    def stored(name: str) -> bytes | None:
        return _content(evidence / name) if (evidence / name).is_file() else None

    documents = {name: content for name in SIGNED if (content := stored(name)) is not None}
    signer, count = verify_signatures(stored, documents, signers, model=model, tree="")
    click.echo(f"verified: {count} subjects, signed by {signer}")


def _verify_version(working_directory: Path, wanted: str, target: Path | None) -> None:
    from mlcicd.config import load_project
    from mlcicd.core.errors import ConfigError
    from mlcicd.stages.artifacts import artifacts_digest, fetch_artifacts, verify_artifacts
    from mlcicd.stages.common import registry_of
    from mlcicd.stages.supply_signing import signers_of, verify_version

    project = load_project(working_directory)
    signers = signers_of(project)
    registry = registry_of(project)
    version = registry.version(project.config.model.name, wanted)
    stored = bool(project.config.register_.artifacts.url and artifacts_digest(version))
    if not signers and not stored and target is None:
        raise ConfigError(
            "the policy names no signers, so there is nobody to trust",
            where=project.config.supply_chain.policy,
            remedy="add `signers: [{name: NAME, key: FILE}]` to it, or identity and issuer instead of the key",
        )
    if signers:
        signer, count = verify_version(registry, version, signers)
        # Fetching compares the bytes with the digest that was signed.
        registry.fetch_model(version.run_id, project.model_cache, digest=version.digest)
        click.echo(f"verified: version {version.version}, {count} subjects, signed by {signer}")
    else:
        click.echo("not asked who signed it: the policy names no signers")
    if target is not None:
        fetch_artifacts(project, version, target)
        click.echo(f"verified: version {version.version} from the artifact repository, in {target}")
    elif stored:
        manifest = verify_artifacts(project, version)
        click.echo(f"verified: {len(manifest.files)} files of it in the artifact repository")


@cli.command("card")
@FOLDER
@plainly
def card(working_directory: Path) -> None:
    """Write or renew the model card from the last evaluation; what people have written into it is kept."""
    from mlcicd.config import load_project
    from mlcicd.core.files import write_atomic
    from mlcicd.stages.common import earlier
    from mlcicd.stages.supply_evidence import card_of
    from mlcicd.supply_chain.card import blanks_of

    project = load_project(working_directory)
    text = card_of(project, earlier(project, "evaluate"))
    name = project.config.supply_chain.card
    write_atomic(project.root / name, text)
    click.echo(f"wrote {name}")
    for title in blanks_of(text):
        click.echo(f"    to be written by a person: {title}")
