"""Which evidence serves which control of a framework. It tells where to look; it judges nothing.

Only what can be looked up in public is cited: the functions and categories of NIST AI RMF 1.0 (NIST AI 100-1,
tables 1 to 4) and the articles of Regulation (EU) 2024/1689. ISO/IEC 42001 is left out: its text is not in public, and
what is told of its numbers elsewhere contradicts itself. Numbers and wording were compared with a transcription of
NIST's tables and with quotations of the regulation, not with the Official Journal itself.

Two articles that look near are not cited. Article 12 is about the events that a system records while it is used, which
a training record is not; Article 14 about people who oversee it in use, which the approval of a deployment is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

_NIST, _EU = "NIST AI RMF 1.0", "Regulation (EU) 2024/1689"


@dataclass(frozen=True)
class Served:
    """One control, and the evidence here that it may be shown with."""

    framework: str
    control: str
    about: str
    evidence: str


# Evidence, by the name of its file or stage, and what it serves.
_MAP: dict[str, tuple[tuple[str, str, str], ...]] = {
    "validate-data.json": (
        (_NIST, "MAP 2.3", "data collection and selection are documented"),
        (_EU, "Article 10", "data and data governance"),
    ),
    "evaluate.json": (
        (_NIST, "MEASURE 2.1", "test sets, metrics and details of the tools are documented"),
        (_NIST, "MEASURE 2.3", "performance is measured for conditions similar to deployment"),
        (_EU, "Article 15", "accuracy, robustness and cybersecurity"),
        (_EU, "Annex IV, 2(g)", "validation and testing procedures, metrics, dated reports"),
    ),
    "train.json": ((_EU, "Annex IV, 2(a)", "methods and steps of the development"),),
    "model-card.md": (
        (_NIST, "MAP 1.1", "intended purposes and context are documented"),
        (_EU, "Article 11", "technical documentation"),
        (_EU, "Article 13", "transparency and provision of information to deployers"),
    ),
    "bom.cdx.json": (
        (_NIST, "GOVERN 6", "third-party software and data, and other supply chain issues"),
        (_NIST, "MAP 4.1", "technology and legal risks of components, third-party data and software among them"),
        (_EU, "Annex IV, 2(a)", "tools of third parties, and how they were used"),
    ),
    "provenance.dsse.json": (
        (_NIST, "MAP 4.2", "internal risk controls for components are identified and documented"),
        (_EU, "Article 15", "accuracy, robustness and cybersecurity"),
    ),
    "provenance.sigstore.json": (
        (_NIST, "MAP 4.2", "internal risk controls for components are identified and documented"),
        (_EU, "Article 15", "accuracy, robustness and cybersecurity"),
    ),
    "scan": ((_NIST, "MEASURE 2.7", "security and resilience are evaluated and documented"),),
    "deploy.json": (
        (_NIST, "MANAGE 1.1", "whether to go on with deployment is determined"),
        (_EU, "Annex IV, 6", "relevant changes through the lifecycle"),
    ),
    "canary.json": (
        (_NIST, "MANAGE 2.4", "mechanisms to supersede, disengage or deactivate"),
        (_NIST, "MANAGE 4.1", "post-deployment monitoring"),
    ),
    "monitor.json": (
        (_NIST, "MEASURE 2.4", "functionality and behaviour are monitored in production"),
        (_EU, "Article 72", "post-market monitoring"),
    ),
}
# What no program can write.
BLANKS = {
    "intended-use": "What the model is for, who uses it, and what it must not be used for.",
    "impact": "Whom its errors harm, how, and what was decided about that.",
    "oversight": "Who watches over it, who may stop it, and how they are reached.",
    "data-origin": "Where the data comes from, by what right, and whom it leaves out.",
    "limitations": "Where it is known to be weak, beyond what the figures here say.",
}


def served_by(evidence: Iterable[str]) -> list[Served]:
    """The controls that evidence of these names may be shown for."""
    return [
        Served(framework, control, about, name)
        for name in sorted(set(evidence))
        for framework, control, about in _MAP.get(name, ())
    ]


def control_document(evidence: Iterable[str]) -> dict[str, object]:
    """`controls.json`: what is served by what, and what a person still has to write."""
    return {
        "schema_version": 1,
        "says": "Where evidence for a control can be found. Whether it is enough is for a person to judge.",
        "controls": [asdict(served) for served in served_by(evidence)],
        "written_by_a_person": BLANKS,
    }
