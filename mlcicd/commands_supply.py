"""Commands of the supply chain: look into a model without loading it, verify what was signed, write the model card."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import FOLDER, plainly


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
@click.option("--evidence", type=click.Path(path_type=Path), help="Folder of its verdicts and its envelope.")
@click.option("--key", type=click.Path(path_type=Path), help="The signer's public key (PEM).")
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
    fetch: Path | None,
) -> None:
    """Verify who signed a model and its verdicts, and that no byte has changed; with --model, without a network."""
    from mlcicd.core.errors import ConfigError

    if model is not None and evidence is not None and key is not None and fetch is None:
        _verify_offline(model, evidence, key)
    elif model_version and (model, evidence, key) == (None, None, None):
        _verify_version(working_directory, model_version, fetch)
    else:
        raise ConfigError(
            "say what to verify",
            remedy="--model-version VERSION alone, which goes by the signers of the policy; "
            "or --model FOLDER with --evidence FOLDER and --key FILE",
        )


def _verify_offline(model: Path, evidence: Path, key: Path) -> None:
    from mlcicd.core.errors import InputError
    from mlcicd.stages.supply_evidence import ENVELOPE, SIGNED
    from mlcicd.supply_chain.provenance import check_statement
    from mlcicd.supply_chain.signing import read_public_key
    from mlcicd.supply_chain.signing import verify as verify_envelope

    for path in (model, evidence / ENVELOPE, key):
        if not path.exists():
            raise InputError("it is not there", where=str(path))
    public = read_public_key(key.read_text(encoding="utf-8", errors="replace"), where=str(key), signer=key.name)
    payload, signer = verify_envelope((evidence / ENVELOPE).read_bytes(), {public.keyid: public})
    documents = {name: (evidence / name).read_bytes() for name in SIGNED if (evidence / name).is_file()}
    count = check_statement(payload, model=model, tree="", documents=documents)
    click.echo(f"verified: {count} subjects, signed with {signer.signer} ({signer.keyid[:16]})")


def _verify_version(working_directory: Path, wanted: str, target: Path | None) -> None:
    from mlcicd.config import load_project
    from mlcicd.core.errors import ConfigError
    from mlcicd.stages.artifacts import artifacts_digest, fetch_artifacts, verify_artifacts
    from mlcicd.stages.common import registry_of
    from mlcicd.stages.supply_evidence import trusted_keys, verify_version

    project = load_project(working_directory)
    keys = trusted_keys(project)
    registry = registry_of(project)
    version = registry.version(project.config.model.name, wanted)
    stored = bool(project.config.register_.artifacts.url and artifacts_digest(version))
    if not keys and not stored and target is None:
        raise ConfigError(
            "the policy names no signers, so there is nobody to trust",
            where=project.config.supply_chain.policy,
            remedy="add `signers: [{name: NAME, key: FILE}]` to it",
        )
    if keys:
        signer, count = verify_version(registry, version, keys)
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
