"""What is proven about a model before it is loaded, and what goes with it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlcicd.config.base import Section


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
