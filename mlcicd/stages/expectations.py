"""evaluate's further gates: fairness, calibration, behaviour, the contract with callers; and the waivers of all."""

from __future__ import annotations

from collections.abc import Sequence

from mlcicd.core.verdict import Check
from mlcicd.stages.expectations_asked import Ground
from mlcicd.stages.expectations_behaviour import behaviour_checks, read_expectations
from mlcicd.stages.expectations_contract import keep_rows, leak_checks, signature_checks
from mlcicd.stages.expectations_gates import calibration_checks, fairness_checks, known_names
from mlcicd.stages.expectations_waivers import read_waivers, waive
from mlcicd.stages.record import Record
from mlcicd.stages.serving_skew import skew_checks

__all__ = ["Ground", "check_expectations", "further_gates"]


def check_expectations(record: Record) -> None:
    """Reads everything that the further gates are written in, before anything is scored.

    Raises:
        ConfigError: something in it is wrong, on its line.
    """
    known_names(record)
    read_expectations(record.project)
    read_waivers(record.project)


def further_gates(record: Record, checks: Sequence[Check], ground: Ground) -> list[Check]:
    """All gates, those of this module behind the given ones, after waivers.

    What is no gate of quality (the signature, the champion's training data) goes into the record: where nothing else
    was judged, it is no reason to call the model good.
    """
    gates = [*checks, *fairness_checks(record, ground), *calibration_checks(record, ground)]
    gates += behaviour_checks(record, ground)
    keep_rows(record)
    contract = [*signature_checks(record, ground), *skew_checks(record, ground), *leak_checks(record, ground)]
    waived = waive(record, [*gates, *contract])
    record.checks += waived[len(gates) :]
    return waived[: len(gates)]
