"""Bill of materials, model card and control map: valid, filled from the verdict, and never more than text."""

from __future__ import annotations

import json
import random
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Status, Subject, Verdict
from mlcicd.report.markup import clean, code, prose
from mlcicd.supply_chain.bom import Material, bill_of_materials
from mlcicd.supply_chain.card import NOT_WRITTEN, Escapes, blanks_of, model_card
from mlcicd.supply_chain.controls import control_document, served_by
from mlcicd.supply_chain.packages import Package, packages_of

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "report"), str(HERE.parent / "ci")]
from hostile_text import hostile as hostile_text  # noqa: E402
from hostile_values import hostile as hostile_value  # noqa: E402

START = datetime(2026, 3, 14, tzinfo=UTC)
NAMES = ["evaluate.json", "train.json", "validate-data.json", "model-card.md", "bom.cdx.json"]
ESCAPES = Escapes(prose=prose, code=code, plain=clean)


def evaluation(text: str = "", **fields: object) -> Verdict:
    def said(plain: str) -> str:
        return text or plain

    metric = {"name": said("roc_auc"), "candidate": 0.81, "candidate_interval": [0.8, 0.82], "champion": None}
    document = {
        "stage": "evaluate",
        "status": Status.PASSED,
        "summary": said("fine"),
        "subjects": [
            Subject(kind="git", name=said("main"), digest="a" * 40, details={"dirty": False}),
            Subject(kind="data", name="train", digest="sha256:" + "1" * 64, details={"path": said("train.csv")}),
            Subject(kind="data", name="holdout", digest="sha256:" + "2" * 64, details={"path": said("holdout.csv")}),
        ],
        "checks": [
            Check(name=said("roc_auc"), status=CheckStatus.PASSED, observed=0.81, required=said(">= 0.7")),
            Check(name=said("roc_auc"), status=CheckStatus.PASSED, observed=0.7, interval=(0.6, 0.8), slice=said("MQ")),
        ],
        "details": {"metrics": [metric]},
        "started": START,
        "finished": START,
    }
    return Verdict.model_validate(document | fields)


def material(name: str = "tiny", path: str = "MLmodel", packages: tuple[Package, ...] = ()) -> Material:
    files = {path: "0" * 64, "model.pkl": "1" * 64}
    return Material(name, "binary", "sha256:" + "3" * 64, files, packages, ["pickle"], served_by(NAMES))


def card(written: str = "", verdict: Verdict | None = None, name: str = "tiny") -> str:
    return model_card(
        written,
        name=name,
        task="binary",
        evaluation=verdict or evaluation(),
        served=served_by(NAMES),
        escapes=ESCAPES,
    )


def invalid(document: dict[str, object]) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))


# --- bill of materials


def test_the_bill_validates_strictly_and_says_what_it_should() -> None:
    packages = (Package("numpy", "2.1.0"), Package("torch", "2.1.0+cpu"), Package("unpinned"))
    document = bill_of_materials(material(packages=packages), evaluation(), "mlcicd 0.1.0")
    assert invalid(document) is None
    component = document["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert {c["name"] for c in component["components"]} == {"MLmodel", "model.pkl"}
    figures = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert figures[0] == {
        "type": "roc_auc",
        "value": "0.81",
        "confidenceInterval": {"lowerBound": "0.8", "upperBound": "0.82"},
    }
    assert figures[1]["slice"] == "MQ"
    references = {c["bom-ref"] for c in document["components"]}
    assert references == {"data:train", "data:holdout", *(p.purl for p in packages)}
    assert set(document["dependencies"][0]["dependsOn"]) == references
    # Not only our own idea of the schema: a field that it does not know must fail.
    component["modelCard"]["invented"] = 1
    assert invalid(document) is not None


def test_the_same_model_and_evaluation_give_the_same_bill() -> None:
    one, other = (bill_of_materials(material(), evaluation(), "mlcicd 0.1.0") for _ in range(2))
    assert one == other
    assert bill_of_materials(material("else"), evaluation("x"), "mlcicd 0.1.0")["serialNumber"] != one["serialNumber"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "text", True])
def test_a_bill_of_odd_figures_is_valid(value: object) -> None:
    metric = {"name": "m", "candidate": value, "candidate_interval": [value, value]}
    verdict = evaluation(details={"metrics": [metric, "no metric"]})
    assert invalid(bill_of_materials(material(), verdict, "mlcicd 0.1.0")) is None
    yaml.safe_load(card(verdict=verdict).split("---\n")[1])


# --- lock files


def test_locks_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# comment\nnumpy==2.1.0 \\\n    --hash=sha256:00\nScikit_Learn[x]==1.5 ; python_version > '3'\n-r other.txt\n"
        "mlflow\nnumpy>=2\n"
    )
    (tmp_path / "uv.lock").write_text('version = 1\n[[package]]\nname = "duckdb"\nversion = "1.3"\n')
    (tmp_path / "pylock.toml").write_text('lock-version = "1.0"\n[[packages]]\nname = "six"\nversion = "1"\n')
    (tmp_path / "conda.yaml").write_text("name: x\ndependencies:\n- python=3.11\n- pip:\n  - pandas==3.0\n")
    assert packages_of(sorted(tmp_path.iterdir())) == [
        Package("duckdb", "1.3"), Package("mlflow"), Package("numpy", "2.1.0"), Package("pandas", "3.0"),
        Package("python", "3.11"), Package("scikit-learn", "1.5"), Package("six", "1"),
    ]  # fmt: skip


def test_a_lock_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("[[")
    with pytest.raises(InputError):
        packages_of([tmp_path / "uv.lock"])
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError):
        packages_of([tmp_path / "requirements.txt"])


# --- model card


def test_a_new_card_has_front_matter_figures_and_blanks() -> None:
    text = card()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "roc_auc", "value": 0.81}]
    assert front["pipeline_tag"] == "tabular-classification"
    assert "| `roc_auc` | 0.81 | 0.8 to 0.82 |" in text
    assert blanks_of(text) == ["Intended use", "Impact", "Oversight", "Origin of the data", "Limitations"]
    assert text.count(NOT_WRITTEN) == 5


def test_what_people_wrote_is_kept_and_figures_are_renewed() -> None:
    written = card().replace(f"{NOT_WRITTEN} What the model is for", "For planning only. \\1 What the model is for")
    written = written.replace("library_name: mlflow", "library_name: mlflow\nlicense: apache-2.0")
    written = written.replace("## Limitations", "## Ours\n\n| a | b |\n\n## Limitations")
    worse = evaluation(details={"metrics": [{"name": "roc_auc", "candidate": 0.5, "champion": 0.81}]})
    text = card(written, worse)
    assert "For planning only. \\1 What" in text
    assert "## Ours\n\n| a | b |" in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"
    assert "| `roc_auc` | 0.5 |" in text
    assert "0.8 to 0.82" not in text
    assert "Intended use" not in blanks_of(text)
    assert card(text, worse) == text


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_written_card_keeps_its_text_and_settles(written: str) -> None:
    once = card(written)
    assert card(once) == once
    if written.strip() and not written.startswith("---") and "<!-- mlcicd:" not in written:
        assert once.endswith(written.replace("\r\n", "\n"))


# --- controls


def test_controls_name_evidence_that_there_is_and_never_judge() -> None:
    document = control_document(["evaluate.json"])
    assert {c["evidence"] for c in document["controls"]} == {"evaluate.json"}  # type: ignore[attr-defined]
    everything = json.dumps(control_document([*NAMES, "scan", "deploy.json", "canary.json", "monitor.json"])) + card()
    assert "compliant" not in everything.lower()
    assert "NIST AI RMF 1.0" in everything


def test_the_word_is_nowhere_in_the_product() -> None:
    root = HERE.parent.parent
    files = [*root.glob("mlcicd/**/*.py"), *root.glob("docs/**/*.md"), root / "README.md"]
    assert not [path for path in files if "compliant" in path.read_text(encoding="utf-8").lower()]


# --- hostile values


class Elements(HTMLParser):
    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.comments: list[str] = []
        self.text: list[str] = []
        self._code = 0
        self.feed(
            MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(["table", "linkify"]).render(markdown)
        )
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self._code += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def halves(text: str) -> tuple[dict[str, object], str]:
    """Front matter and text, cut as Hugging Face's library does: at the next line that is only dashes."""
    match = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    assert match is not None
    return yaml.safe_load(match[1]), match[2]


def no_code(tags: list[str]) -> list[str]:
    return [tag for tag in tags if tag != "code"]


REFERENCES = re.compile(r"@[\w/]|(?<!\w)#\d|\bGH-\d|https?://|ftp://|www\.|mailto:\w", re.IGNORECASE)


@pytest.mark.slow
def test_hostile_values_stay_text_in_card_and_bill() -> None:
    """20,000 values: each is in a name, a reason, a slice or a path of one verdict."""
    rng = random.Random(17)
    plain = Elements(halves(card(verdict=many(lambda: "x"), name="x"))[1])
    count = 0

    def value() -> str:
        nonlocal count
        count += 1
        return hostile_text(rng) if rng.random() < 0.5 else hostile_value(rng)

    while count < 20_000:
        verdict = many(value)
        # As a stage would have written and read it again; lone surrogates end there.
        verdict = Verdict.model_validate(json.loads(json.dumps(verdict.to_json(), sort_keys=True)))
        name = value()
        text = card(verdict=verdict, name=name)
        text.encode()
        front, body = halves(text)
        assert set(front) == {"library_name", "pipeline_tag", "model-index"}
        assert front["model-index"][0]["name"] == clean(name)
        elements = Elements(body)
        assert no_code(elements.tags) == no_code(plain.tags), text
        assert elements.comments == plain.comments
        assert not REFERENCES.search("".join(elements.text)), text
        bill = bill_of_materials(material(name, value()), verdict, "mlcicd 0.1.0")
        assert invalid(bill) is None
        assert json.loads(json.dumps(bill)) == bill
        for line in strings_of(bill):
            assert line.isprintable(), line


def many(value: object) -> Verdict:
    checks = [
        Check(name=value(), status=CheckStatus.PASSED, observed=value(), required=value(), slice=value())  # type: ignore[operator]
        for _ in range(50)
    ]
    metrics = [{"name": value(), "candidate": 0.5, "champion": value()} for _ in range(10)]  # type: ignore[operator]
    verdict = evaluation("x", checks=checks, details={"metrics": metrics}, summary="x" + value())  # type: ignore[operator]
    return verdict


def strings_of(item: object) -> list[str]:
    if isinstance(item, dict):
        return [text for value in item.values() for text in strings_of(value)]
    if isinstance(item, list):
        return [text for value in item for text in strings_of(value)]
    return [item] if isinstance(item, str) else []
