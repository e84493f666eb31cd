"""What is written for Argo Rollouts and Flagger: valid, least privilege, and nobody's name becomes structure.

The parts of their custom resources that the templates use are written down by hand from the published types (Argo
Rollouts 1.8, Flagger 1.42, Gateway API 1): no package that the tests may install carries the definitions. What is not
listed is refused.
"""

from __future__ import annotations

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kube_world import NAME, OPTIONS
from test_targets_kubernetes_manifests import HOSTILE, KUBERNETES, ROUTE_SPEC

from mlcicd.core.errors import ConfigError
from mlcicd.targets.kubernetes.controllers import CONTROLLERS, ControllerManifests, Judgement, written
from mlcicd.targets.kubernetes.manifests import OWNER, VERSION, Names
from mlcicd.targets.kubernetes.settings import Settings
from mlcicd.targets.kubernetes.state import ClusterVersion


def closed(required=(), **properties):
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def listed(items):
    return {"type": "array", "items": items}


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
SECONDS = {"type": "string", "pattern": "^[1-9][0-9]*s$"}
SECRET = closed(("secretKeyRef",), secretKeyRef=closed(("name", "key"), name=TEXT, key=TEXT))
ARGUMENT = closed(("name",), name=TEXT, value=TEXT, valueFrom=SECRET)
WEB = closed(
    ("url",),
    url={"type": "string", "pattern": "^https?://"},
    method={"enum": ["GET", "POST", "PUT"]},
    headers=listed(closed(("key", "value"), key=TEXT, value=TEXT)),
    body=TEXT,
    timeoutSeconds=COUNT,
    jsonPath=TEXT,
)
ANALYSIS_TEMPLATE = closed(
    ("metrics",),
    args=listed(ARGUMENT),
    metrics=listed(
        closed(
            ("name", "provider"),
            name=TEXT,
            interval=SECONDS,
            count=COUNT,
            successCondition=TEXT,
            failureCondition=TEXT,
            failureLimit=COUNT,
            inconclusiveLimit=COUNT,
            consecutiveErrorLimit=COUNT,
            consecutiveSuccessLimit=COUNT,
            provider=closed(("web",), web=WEB),
        )
    ),
)
STEP = {
    "oneOf": [
        closed(("setWeight",), setWeight={"type": "integer", "minimum": 0, "maximum": 100}),
        closed(
            ("analysis",),
            analysis=closed(
                ("templates",), templates=listed(closed(("templateName",), templateName=TEXT)), args=listed(ARGUMENT)
            ),
        ),
    ]
}
PLUGIN = closed(("httpRoute", "namespace"), httpRoute=TEXT, namespace=TEXT)
ROLLOUT = closed(
    ("selector", "template", "strategy"),
    replicas=COUNT,
    revisionHistoryLimit=COUNT,
    progressDeadlineSeconds=COUNT,
    progressDeadlineAbort={"type": "boolean"},
    rollbackWindow=closed(revisions=COUNT),
    selector=closed(matchLabels={"type": "object"}),
    template={"type": "object"},
    strategy=closed(
        ("canary",),
        canary=closed(
            canaryService=TEXT,
            stableService=TEXT,
            trafficRouting=closed(("plugins",), plugins=closed(**{"argoproj-labs/gatewayAPI": PLUGIN})),
            scaleDownDelaySeconds=COUNT,
            abortScaleDownDelaySeconds=COUNT,
            steps=listed(STEP),
        ),
    ),
)
HOOK = closed(
    ("name", "url"),
    name=TEXT,
    type={"enum": ["rollback", "rollout", "confirm-traffic-increase", "confirm-promotion", "post-rollout"]},
    url={"type": "string", "pattern": "^https?://"},
    timeout=SECONDS,
    muteAlert={"type": "boolean"},
    metadata={"type": "object", "additionalProperties": TEXT},
)
CANARY = closed(
    ("targetRef", "analysis"),
    provider={"const": "gatewayapi:v1"},
    targetRef=closed(("apiVersion", "kind", "name"), apiVersion=TEXT, kind={"const": "Deployment"}, name=TEXT),
    progressDeadlineSeconds=COUNT,
    skipAnalysis={"type": "boolean"},
    service=closed(
        ("port",),
        port=COUNT,
        portName=TEXT,
        targetPort=COUNT,
        appProtocol=TEXT,
        gatewayRefs=listed(closed(("name",), group=TEXT, kind=TEXT, name=TEXT, namespace=TEXT)),
        hosts=listed(TEXT),
        match=listed(closed(uri=closed(("prefix",), prefix=TEXT))),
    ),
    analysis=closed(
        ("interval", "threshold"),
        interval=SECONDS,
        threshold=COUNT,
        stepWeights=listed({"type": "integer", "minimum": 1, "maximum": 99}),
        webhooks=listed(HOOK),
    ),
)
CUSTOM = {"AnalysisTemplate": ANALYSIS_TEMPLATE, "Rollout": ROLLOUT, "Canary": CANARY, "HTTPRoute": ROUTE_SPEC}


def made(controller, *, model="toy", folder=None, options=None, **judgement):
    values = {"champion": "1", "attempt": "1", "percents": (5, 25, 50), "interval_s": 30.0, "max_duration_s": 3600.0}
    asked = Judgement(**{**values, "patience_s": 600.0, "image": "registry.example.com/judge:1", **judgement})
    version = ClusterVersion(name=model, version="2", digest="sha256:01", generation=1, image="r.example.com/toy:2")
    manifests = ControllerManifests(
        Names(model, "production"), Settings(**{**OPTIONS, **(options or {})}), 90.0, folder
    )
    return manifests.handed_over(controller, version, asked)


def validate(one):
    if one["kind"] in CUSTOM:
        jsonschema.validate(one["spec"], CUSTOM[one["kind"]])
    else:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    if one["kind"] == "Rollout":
        # Its pods, which are those of a Deployment.
        pods = {"selector": one["spec"]["selector"], "template": one["spec"]["template"]}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": pods}
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"champion": ""},
        {"image": "", "url": "https://judge.example.com/mlcicd/"},
        {"environment_secret": "judge-env"},
        {"options": {"replicas": None, "path": "/score", "hostnames": [], "image_pull_secrets": ["registry"]}},
        {"options": {"replicas": 1}},
    ],
    ids=["plain", "first", "elsewhere", "secret", "options", "one-pod"],
)
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_object_is_valid(controller, changes):
    objects = made(controller, **changes)
    for name, one in objects.items():
        assert yaml.safe_load(written(one)) == one, name
        validate(one)
    kinds = {one["kind"] for one in objects.values()}
    assert ({"Rollout", "AnalysisTemplate", "HTTPRoute"} if controller == "argo-rollouts" else {"Canary"}) <= kinds
    assert ("Service" in kinds) is (controller == "argo-rollouts" or "url" not in changes)


@pytest.mark.parametrize("name", HOSTILE[5:9], ids=["long", "lines", "json", "jinja"])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_no_name_becomes_structure(controller, name):
    plain = made(controller)
    hostile = made(controller, model=name)
    assert sorted(one["kind"] for one in hostile.values()) == sorted(one["kind"] for one in plain.values())
    for one in hostile.values():
        validate(one)
    versions = [one["metadata"].get("annotations", {}).get(VERSION) for one in hostile.values()]
    assert "2" in versions


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_what_is_written_is_nothing_that_the_target_would_remove(controller):
    for one in made(controller).values():
        assert OWNER not in one["metadata"].get("annotations", {})


def test_flaggers_judge_may_read_one_object_and_argos_nothing():
    rules = [one["rules"] for one in made("flagger").values() if one["kind"] == "Role"]
    assert rules == [
        [{"apiGroups": ["flagger.app"], "resources": ["canaries"], "resourceNames": [NAME], "verbs": ["get"]}]
    ]
    argo = made("argo-rollouts", token_secret="judge-token")
    assert not any(one["kind"] in ("Role", "RoleBinding") for one in argo.values())
    pod = argo[f"deployment-{NAME}-judge.yaml"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "--token-env=MLCICD_JUDGE_TOKEN" in pod["containers"][0]["args"]
    templates = [one for one in argo.values() if one["kind"] == "AnalysisTemplate"]
    assert all({"key": "Authorization", "value": "Bearer {{args.token}}"} in _web(one)["headers"] for one in templates)


def _web(template):
    return template["spec"]["metrics"][0]["provider"]["web"]


def test_the_judges_time_limit_ends_before_argos_count():
    metric = made("argo-rollouts", max_duration_s=7200.0, interval_s=45.0)[f"analysistemplate-{NAME}-judge.yaml"]
    metric = metric["spec"]["metrics"][0]
    assert metric["count"] * 45 > 7200 and metric["interval"] == "45s"
    # All of them undecided is no success, for a release that knows no limit of successes either.
    assert metric["inconclusiveLimit"] == metric["count"] - 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"percents": (2.5, 10)}, "whole percents"),
        ({"url": "javascript:1"}, "not the address"),
        ({"url": 'http://a"/\n'}, "not the address"),
        ({"image": ""}, "who judges"),
        ({"options": {"kind": "kserve"}}, "take"),
    ],
    ids=["percent", "scheme", "quote", "nobody", "kserve"],
)
def test_what_a_controller_can_not_do_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        made("argo-rollouts", **changes)


def test_a_template_of_the_projects_own_replaces_one(tmp_path):
    own = tmp_path / "argo-rollouts"
    own.mkdir()
    (own / "disruption.yaml.j2").write_text("")
    (own / "extra.yaml.j2").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ name | tojson }}}\n"
        "data: {champion: {{ champion | tojson }}}"
    )
    objects = made("argo-rollouts", folder=tmp_path)
    assert not any(one["kind"] == "PodDisruptionBudget" for one in objects.values())
    assert objects[f"configmap-{NAME}.yaml"]["data"] == {"champion": "1"}
