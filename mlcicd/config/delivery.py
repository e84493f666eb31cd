"""Where versions go, and who lets them into production."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mlcicd.config.base import Alias, Duration, Section


class Parity(Section):
    """What the running server answers beside what the model answers where it was evaluated."""

    rows: int = Field(
        50, ge=0, le=10_000, description="Rows of the holdout that both are asked; 0 leaves the comparison out."
    )
    tolerance: float = Field(
        1e-6, ge=0, description="Largest difference between two numbers; of numbers above 1, relative to them."
    )


class Tls(Section):
    """Certificates of an endpoint: paths of PEM files, `${VAR}` in them as everywhere."""

    certificate: str = Field(description="The server's certificate, with its chain.")
    key: str = Field(description="Its private key, without a password.")
    client_ca: str = Field(
        "",
        description="Callers must show a certificate that one of these authorities signed; nobody is asked when empty.",
    )
    client_certificate: str = Field("", description="Certificate that `canary.traffic` shows as a caller.")
    client_key: str = Field("", description="Its private key.")


class Environment(Section):
    """One place where the model runs."""

    target: str = Field(
        "local", description="Target plug-in that runs it: `local`, `kubernetes`, or one that is installed."
    )
    strategy: Literal["direct", "canary"] = Field(
        "direct", description="Switch all traffic at once after the smoke test, or hand over to the canary."
    )
    smoke: str = Field("", description="JSON-lines file of golden requests; all must be answered as expected.")
    parity: Parity = Field(
        default_factory=Parity,
        description="Compares the server with the model where it was evaluated. Unless it is given, only where the "
        "holdout is at hand.",
    )
    port: int = Field(0, ge=0, le=65535, description="Port of the endpoint; 0 lets the system choose once.")
    tls: Tls | None = Field(None, description="TLS of the endpoint, and client certificates; plain HTTP when absent.")
    state: str = Field(
        "",
        description="State folder of the local target; one outside of the project ($XDG_STATE_HOME/mlcicd) when empty.",
    )
    ready_timeout: Duration = Field("2m", description="How long a version may take to become ready.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="The target's own options, such as those of docs/kubernetes.md."
    )


class InferenceLog(Section):
    """What the model server writes down of requests and their answers, for labels to be joined to later."""

    sample: float = Field(1.0, ge=0, le=1, description="The part of the requests that is written.")
    redact: list[str] = Field(
        default_factory=list, description="Columns of inputs and answers that never reach the disk."
    )
    max_mb: float = Field(100.0, gt=0, description="Size in MB at which a file is put aside.")
    keep: int = Field(5, ge=0, le=1000, description="How many files are kept beside the current one of each server.")


class Deploy(Section):
    """Where versions go, and who lets them into production."""

    mode: Literal["delivery", "deployment"] = Field(
        "delivery", description="delivery: a person approves production; deployment: nobody has to."
    )
    environments: dict[Alias, Environment] = Field(
        default_factory=lambda: {"production": Environment()}, description="The places, in order of promotion."
    )
    inference_log: InferenceLog | None = Field(None, description="Write requests and answers down; off when absent.")
    token_env: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="Environment variable with the token that callers must send; everybody is let in when empty.",
    )
