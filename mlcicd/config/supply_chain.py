"""What is proven about a model before it is loaded, and what goes with it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlcicd.config.base import Section, service_address


class Sigstore(Section):
    """Keyless signatures: `register` signs as the identity that the CI host gives its job, with no key to keep."""

    sign: bool = Field(
        False,
        description="`register` signs the version with Sigstore, beside a key file's signature where there is one. "
        "Needs `mlcicd[sigstore]`, and on GitHub `id-token: write`.",
    )
    fulcio: str = Field(
        "",
        description="A Sigstore of your own: address of its certificate authority, without a path. Its trusted root is "
        "named by the policy. The public Sigstore when empty.",
    )
    rekor: str = Field("", description="Address of its transparency log.")
    rekor_api: Literal[1, 2] = Field(1, description="Version of the log's API; version 2 needs `timestamps`.")
    timestamps: str = Field("", description="Address of its RFC 3161 time stamps.")

    @field_validator("fulcio", "rekor", "timestamps")
    @classmethod
    def _where_tokens_may_go(cls, value: str) -> str:
        return service_address(value) if value else value

    @model_validator(mode="after")
    def _whole(self) -> Sigstore:
        if bool(self.fulcio) != bool(self.rekor):
            raise ValueError("a Sigstore of your own is fulcio and rekor: give both, or none")
        if self.timestamps and not self.fulcio:
            raise ValueError("timestamps belongs to a Sigstore of your own: give fulcio and rekor, too")
        if self.rekor_api == 2 and self.fulcio and not self.timestamps:
            raise ValueError("entries of version 2 carry no time: rekor_api 2 needs timestamps")
        return self


class SupplyChain(Section):
    """What is proven about a model before it is loaded, and what goes with it."""

    scan: Literal["enforce", "warn", "off"] = Field(
        "enforce",
        description="enforce: a model with anything in it that is not on the reviewed list is refused before it is "
        "loaded or registered. The model that `train` has just made here is only warned of by `evaluate`, because its "
        "code has run already. warn: report, and load it all the same.",
    )
    policy: str = Field(
        "model-policy.yaml",
        description="File that says which globals, code, formats and signers are allowed, each with an owner.",
    )
    key: str = Field(
        "",
        description="Private key (PEM, Ed25519 or ECDSA P-256) that `register` signs with; MLCICD_PRIVATE_KEY, if set, "
        "is used instead, as PEM text. Unsigned when neither is there.",
    )
    card: str = Field("model-card.md", description="Model card in the repository, whose written parts are kept.")
    sigstore: Sigstore = Field(default_factory=Sigstore)
