"""The manifests, against the published schemas and what least privilege means; names that nobody should give."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_world import OPTIONS

from mlcicd.core.errors import ConfigError
from mlcicd.targets.kubernetes.diff import object_diff
from mlcicd.targets.kubernetes.manifests import Manifests, Names
from mlcicd.targets.kubernetes.names import dns_label
from mlcicd.targets.kubernetes.settings import Settings, read_settings
from mlcicd.targets.kubernetes.state import ClusterVersion

KUBERNETES = "1.31"
LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
HOSTILE = [
    "",
    " ",
    "-",
    "1",
    "Über-Modell",
    "a" * 300,
    "x\n  replicas: 99",
    '"}]}, {"kind": "Secret"',
    "{{ 7 * 7 }}",
    "{% raw %}",
    "../../etc",
    "a: &b *b",
    "null",
    "名前",
    "\x00",
    "xn--a",
]

# The parts of two custom resources that the templates write, by hand from their published types (Gateway API v1, KServe
# v1beta1): no package that the tests may install carries the definitions. What is not listed is refused.
_NAME = {"type": "string", "minLength": 1, "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
ROUTE_SPEC = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "parentRefs": {
            "type": "array",
            "maxItems": 32,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "group": {"type": "string", "maxLength": 253},
                    "kind": {"type": "string", "minLength": 1, "maxLength": 63},
                    "name": _NAME,
                    "namespace": {**_NAME, "maxLength": 63},
                    "sectionName": _NAME,
                    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                },
            },
        },
        "hostnames": {
            "type": "array",
            "maxItems": 16,
            "items": {
                "type": "string",
                "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            },
        },
        "rules": {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "matches": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "path": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "properties": {
                                        "type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                                        "value": {"type": "string", "maxLength": 1024, "pattern": "^/"},
                                    },
                                }
                            },
                        },
                    },
                    "filters": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["type", "requestMirror"],
                            "properties": {
                                "type": {"const": "RequestMirror"},
                                "requestMirror": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["backendRef"],
                                    "properties": {
                                        "backendRef": {"type": "object", "required": ["name", "port"]},
                                        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
                                        "fraction": {
                                            "type": "object",
                                            "additionalProperties": False,
                                            "required": ["numerator"],
                                            "properties": {
                                                "numerator": {"type": "integer", "minimum": 0},
                                                "denominator": {"type": "integer", "minimum": 1},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                    "backendRefs": {
                        "type": "array",
                        "maxItems": 16,
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["name", "port"],
                            "properties": {
                                "group": {"type": "string", "maxLength": 253},
                                "kind": {"type": "string"},
                                "name": _NAME,
                                "namespace": _NAME,
                                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                                "weight": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
                            },
                        },
                    },
                },
            },
        },
    },
}
# A predictor is a PodSpec with these beside it.
PREDICTOR_OWN = {
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "minReplicas": {"type": "integer", "minimum": 0},
    "maxReplicas": {"type": "integer", "minimum": 0},
}
PREDICTOR_MODEL = {
    "type": "object",
    "additionalProperties": False,
    "required": ["modelFormat"],
    "properties": {
        "modelFormat": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
        },
        "protocolVersion": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
        "storageUri": {"type": "string"},
        "resources": {"type": "object"},
        "securityContext": {"type": "object"},
    },
}


def _manifests(kind="gateway", model="toy", environment="production", folder=None, **options):
    chosen = {**OPTIONS, "kind": kind, **options}
    if "storage_uri" in chosen:
        chosen.pop("image")
    return Manifests(Names(model, environment), Settings(**chosen), 90.0, folder)


def _version(version="1", model="toy", **fields):
    image = fields.pop("image", "registry.example.com/toy:1")
    digest = "sha256:0123"
    return ClusterVersion(name=model, version=version, digest=digest, generation=1, image=image, **fields)


def _all(manifests, version):
    return [*manifests.model(), *manifests.version(version), manifests.route("1", "2", 0.25, 7)]


def _validate(one):
    """Against Kubernetes' own schemas, or the part of the custom resources that is written down above."""
    metadata = one["metadata"]
    for value in metadata["labels"].values():
        assert LABEL_VALUE.fullmatch(value), value
    assert LABEL.fullmatch(metadata["name"]), metadata["name"]
    if one["kind"] == "HTTPRoute":
        jsonschema.validate(one["spec"], ROUTE_SPEC)
    elif one["kind"] == "InferenceService":
        assert set(one["spec"]) == {"predictor"}
        predictor = dict(one["spec"]["predictor"])
        for key, schema in PREDICTOR_OWN.items():
            if key in predictor:
                jsonschema.validate(predictor.pop(key), schema)
        model = predictor.pop("model", None)
        if model is not None:
            jsonschema.validate(model, PREDICTOR_MODEL)
            predictor["containers"] = [{"name": "kserve-container", "image": "the-runtimes"}]
            predictor["containers"][0].update({k: model[k] for k in ("resources", "securityContext")})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": metadata["name"]}, "spec": predictor}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    else:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"replicas": None},
        {"replicas": 1, "memory": "2Gi", "cpu": "2"},
        {"hostnames": [], "allow_namespaces": ["monitoring"], "allow_cidrs": ["10.0.0.0/28"], "path": "/score"},
        {"image_pull_secrets": ["registry"]},
        {"kind": "kserve"},
        {"kind": "kserve", "replicas": None, "image_pull_secrets": ["registry"]},
        {"kind": "kserve", "storage_uri": "s3://models/{version}"},
    ],
)
def test_all_manifests_are_valid(options):
    version = _version(image="" if "storage_uri" in options else "registry.example.com/toy:1", storage_uri="s3://m/1")
    for one in _all(_manifests(**options), version):
        _validate(one)


def test_the_check_itself_can_fail():
    (deployment,) = [one for one in _manifests().version(_version()) if one["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readonly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(deployment)
    route = _manifests().route("1", None, 0.0, 1)
    route["spec"]["rules"][0]["backendRefs"][0]["weigth"] = 3
    with pytest.raises(jsonschema.ValidationError):
        _validate(route)


@pytest.mark.parametrize("kind", ["gateway", "kserve"])
def test_pods_have_the_least_privilege(kind):
    made = _manifests(kind=kind)
    workload = next(one for one in made.version(_version()) if one["kind"] in ("Deployment", "InferenceService"))
    pod = workload["spec"]["predictor"] if kind == "kserve" else workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
    assert not {"privileged", "hostNetwork", "hostPID"} & {*pod, *security}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == "1Gi"
    account, policy = made.model()[1], made.model()[0]
    assert (account["kind"], account["automountServiceAccountToken"]) == ("ServiceAccount", False)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"] and policy["spec"]["egress"] == []
    wanted = policy["spec"]["podSelector"]["matchLabels"]
    labels = pod["labels"] if kind == "kserve" else workload["spec"]["template"]["metadata"]["labels"]
    assert wanted.items() <= labels.items()


def test_memory_is_that_of_the_measurement_with_room():
    (deployment,) = [one for one in _manifests().version(_version(peak_memory_mb=700.0)) if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "1344Mi"}  # 1.5 * 700 + 256, up to the next 64


@pytest.mark.parametrize(
    "share", [0.0, 1e-7, 0.001, 0.01, 1 / 3, 0.05, 0.125, 0.999999, 0.9999999, 1 - 1e-9, 1e-9, 1.0]
)
def test_weights_are_whole_numbers_near_the_share(share):
    refs = _manifests().route("1", "2", share, 1)["spec"]["rules"][0]["backendRefs"]
    weights = {ref["name"][-1]: ref["weight"] for ref in refs}
    assert all(weight > 0 for weight in weights.values())
    assert ("2" in weights) == (share > 0) and ("1" in weights) == (share < 1)
    assert weights.get("2", 0) / sum(weights.values()) == pytest.approx(share, abs=1.1e-5)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("kind", ["gateway", "kserve"])
def test_hostile_names_stay_text(hostile, kind):
    made = _manifests(kind=kind, model=hostile, environment=hostile)
    objects = _all(made, _version(version="1", model=hostile))
    plain = _all(_manifests(kind=kind), _version(version="1"))
    assert [one["kind"] for one in objects] == [one["kind"] for one in plain]
    for one in objects:
        _validate(one)
        assert one["metadata"]["annotations"]["mlcicd.io/owner"] == f"{hostile}/{hostile}"
    workload = next(one for one in objects if one["kind"] in ("Deployment", "InferenceService"))
    pod = workload["spec"]["predictor"] if kind == "kserve" else workload["spec"]["template"]["spec"]
    assert f"--name={hostile}" in pod["containers"][0]["args"]


@given(st.lists(st.text(max_size=80), min_size=1, max_size=3))
def test_any_names_give_a_label(parts):
    label = dns_label(*parts)
    assert LABEL.fullmatch(label) and len(label) <= 48


@given(
    st.lists(st.lists(st.text("aA-1_é.", max_size=6), min_size=3, max_size=3), min_size=2, max_size=20, unique_by=tuple)
)
def test_different_names_give_different_labels(names):
    assert len({dns_label(*parts) for parts in names}) == len(names)


def test_plain_names_stay_readable():
    assert dns_label("flight-delays", "production", "v12") == "flight-delays--production--v12"
    assert dns_label("scorer", "staging-production") != dns_label("scorer-staging", "production")


def test_a_projects_templates_replace_and_add_file_by_file(tmp_path):
    (tmp_path / "version-disruption.yaml.j2").write_text("{# none #}\n")
    (tmp_path / "version-autoscaler.yaml.j2").write_text(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\n"
        "metadata: {name: {{ versioned | tojson }}, labels: {mlcicd.io/version: forged, team: a}}\n"
        "spec:\n  maxReplicas: 5\n"
        "  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ versioned | tojson }}}\n"
    )
    made = _manifests(folder=tmp_path, replicas=None)
    objects = made.version(_version())
    assert sorted(one["kind"] for one in objects) == ["Deployment", "HorizontalPodAutoscaler", "Service"]
    for one in objects:
        _validate(one)
        # What tells whose an object is can not be said by a template.
        assert one["metadata"]["labels"]["mlcicd.io/version"] == "toy--production--v1"
        assert one["metadata"]["namespace"] == "ml"
    assert objects[0]["metadata"]["labels"]["team"] == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ nobody_knows }}", "nobody_knows"),
        ("{% if %}", "the template fails"),
        ("kind: [", "no YAML"),
        ("just text", "no object"),
        ("apiVersion: v1\nkind: Service\nmetadata: [1]", "no object"),
        ("apiVersion: v1\nkind: Service\nmetadata: {labels: {}}", "no object"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: 1}", "no object"),
        ("apiVersion: v1\nkind: [Service]\nmetadata: {name: a}", "no object"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: [1]}", "no object"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 1 + name }}", "TypeError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}", "no Deployment"),
    ],
)
def test_a_template_that_does_not_work_is_named(tmp_path, text, said):
    (tmp_path / "version-deployment.yaml.j2").write_text(text)
    with pytest.raises(ConfigError) as caught:
        _manifests(folder=tmp_path).version(_version())
    assert said in f"{caught.value.one_line()} {caught.value.why}"
    if said != "no Deployment":
        assert "version-deployment.yaml.j2" in f"{caught.value.where} {caught.value.file}"


def test_an_absent_folder_of_templates_is_named(tmp_path):
    with pytest.raises(ConfigError, match="not there"):
        _manifests(folder=tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"namespace": "Not A Label"}, "namespace"),
        ({"image": "registry/model:latest"}, "two versions would be the same bytes"),
        ({"image": "registry/model:{tag}"}, "unknown placeholder {tag}"),
        ({"image": "registry/model:{version"}, "not a template"),
        ({"storage_uri": "s3://m/{version}"}, "either `image` or"),
        ({"image": "", "storage_uri": "s3://m/{version}"}, "kserve"),
        ({"replicas": 0}, "replicas"),
        ({"replica": 2}, "replica"),
        ({"allow_cidrs": ["10.0.0.1/8"]}, "allow_cidrs"),
        ({"gateway": "a/b/c"}, "gateway"),
        ({"memory": "lots"}, "memory"),
        ({"path": "no-slash"}, "path"),
        ({"drain_s": float("nan")}, "drain_s"),
    ],
)
def test_options_that_make_no_sense_are_named(options, said):
    with pytest.raises(ConfigError) as caught:
        read_settings("production", {**OPTIONS, **options})
    assert said in caught.value.one_line()


def test_a_diff_shows_no_value_of_a_secret():
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "aGlkZGVu"}}
    lines = object_diff(None, secret)
    assert "+  key: '***'" in lines and not any("aGlkZGVu" in line for line in lines)


def test_the_documentation_names_each_option():
    text = Path("docs/kubernetes.md").read_text()
    missing = [name for name in Settings.model_fields if f"| `{name}` |" not in text]
    assert missing == []


@pytest.mark.parametrize(
    ("fraction", "part"),
    [(0.2, {"percent": 20}), (0.005, {"fraction": {"numerator": 5, "denominator": 1000}}), (1.0, {}), (0.0, None)],
    ids=["percent", "fraction", "all", "none"],
)
def test_a_mirror_is_a_filter_of_the_route(fraction, part):
    route = _manifests().route("1", "2", 0.0, 7, mirror=fraction)
    _validate(route)
    rule = route["spec"]["rules"][0]
    if part is None:
        assert "filters" not in rule
        return
    (copies,) = [one["requestMirror"] for one in rule["filters"]]
    assert copies.pop("backendRef")["name"].endswith("--v2") and copies == part
    assert [ref["name"][-3:] for ref in rule["backendRefs"]] == ["-v1"], "nobody's answer is the canary's"
