"""Stand-ins for Argo Rollouts and Flagger: they take written manifests, and ask over real HTTP as the real ones do.

Written from their documentation and published sources: Argo's `web` provider with its conditions and limits (as of
release 1.8, or before it), and Flagger's order of hooks within one iteration, to which only codes up to 202 are a yes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

_CONDITION = re.compile(r'result\.(\w+) (==|!=) "(\w+)"')
_ARGUMENT = re.compile(r"\{\{\s*args\.([\w-]+)\s*\}\}")


def _holds(condition: str, result: Mapping[str, Any]) -> bool:
    match = _CONDITION.fullmatch(condition)
    assert match, f"a condition that this stand-in does not know: {condition}"
    name, operator, value = match.groups()
    return (result[name] == value) is (operator == "==")


@dataclass
class Argo:
    """Walks a Rollout's steps.

    Args:
        templates: AnalysisTemplates by name.
        secrets: values by (Secret, key).
        set_weight: told the percent of each step.
        wait: lets an interval pass.
        stops_at_success: whether it knows `consecutiveSuccessLimit` (1.8 and later).
    """

    templates: Mapping[str, Any]
    set_weight: Callable[[int], None]
    wait: Callable[[float], None]
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    stops_at_success: bool = True
    measured: list[Any] = field(default_factory=list)

    def roll_out(self, rollout: Mapping[str, Any]) -> str:
        """`Healthy`, `Degraded` (aborted) or `Paused`."""
        for step in rollout["spec"]["strategy"]["canary"]["steps"]:
            if "setWeight" in step:
                self.set_weight(step["setWeight"])
                continue
            phase = self.analyse(step["analysis"])
            if phase == "Inconclusive":
                return "Paused"
            if phase != "Successful":
                self.set_weight(0)
                return "Degraded"
        return "Healthy"

    def analyse(self, analysis: Mapping[str, Any]) -> str:
        (reference,) = analysis["templates"]
        spec = self.templates[reference["templateName"]]["spec"]
        given = {one["name"]: one["value"] for one in analysis["args"]}
        arguments = {}
        for one in spec["args"]:
            reference = one.get("valueFrom", {}).get("secretKeyRef")
            found = self.secrets[reference["name"], reference["key"]] if reference else given[one["name"]]
            arguments[one["name"]] = found
        (metric,) = spec["metrics"]
        return self._run(metric, arguments)

    def _run(self, metric: Mapping[str, Any], arguments: Mapping[str, str]) -> str:
        counts = dict.fromkeys(("Successful", "Failed", "Inconclusive"), 0)
        errors = 0
        enough = metric.get("consecutiveSuccessLimit", 0) if self.stops_at_success else 0
        for _ in range(metric["count"] + 1000):
            phase = self._measure(metric, arguments)
            errors = errors + 1 if phase == "Error" else 0
            if errors > metric.get("consecutiveErrorLimit", 4):
                return "Error"
            if phase != "Error":
                counts[phase] += 1
            if counts["Failed"] > metric.get("failureLimit", 0):
                return "Failed"
            if counts["Inconclusive"] > metric.get("inconclusiveLimit", 0):
                return "Inconclusive"
            if enough and counts["Successful"] >= enough:
                return "Successful"
            if sum(counts.values()) >= metric["count"]:
                return "Inconclusive" if enough else "Successful"
            # Where no interval is given, Argo measures again only after an error, ten seconds later.
            self.wait(float(metric.get("interval", "10s").removesuffix("s")))
        raise AssertionError("the analysis never ended")

    def _measure(self, metric: Mapping[str, Any], arguments: Mapping[str, str]) -> str:
        web = metric["provider"]["web"]

        def filled(text: str) -> str:
            return _ARGUMENT.sub(lambda match: arguments[match[1]], text)

        headers = {one["key"]: filled(one["value"]) for one in web.get("headers", [])}
        method = web.get("method", "GET")
        assert method != "GET" or "body" not in web, "Argo refuses a body with GET"
        answer = requests.request(
            method, filled(web["url"]), headers=headers, data=web.get("body"), timeout=web["timeoutSeconds"]
        )
        self.measured.append((answer.status_code, answer.json()))
        if not 200 <= answer.status_code < 300:
            return "Error"
        assert web["jsonPath"] == "{$}"
        if _holds(metric["failureCondition"], answer.json()):
            return "Failed"
        return "Successful" if _holds(metric["successCondition"], answer.json()) else "Inconclusive"


@dataclass
class Flagger:
    """Advances one Canary, an iteration at a time.

    Args:
        canary: the object; its status is written here.
        set_weight: told each weight.
    """

    canary: dict[str, Any]
    set_weight: Callable[[int], None]
    asked: list[tuple[str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.canary["status"] = {"phase": "Progressing", "canaryWeight": 0, "failedChecks": 0}

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.canary["status"]
        return found

    def iterate(self) -> None:
        analysis, status = self.canary["spec"]["analysis"], self.status
        if status["phase"] in ("Succeeded", "Failed"):
            return
        if self._all_say_yes("rollback") or status["failedChecks"] >= analysis["threshold"]:
            self._move(0)
            self._end("Failed")
            return
        if status["canaryWeight"] > 0 and not self._all_say_yes("rollout"):
            status["failedChecks"] += 1
            return
        if status["phase"] != "WaitingPromotion" and not self._all_say_yes("confirm-traffic-increase"):
            return
        steps = analysis["stepWeights"]
        if status["canaryWeight"] < steps[-1]:
            self._move(next(weight for weight in steps if weight > status["canaryWeight"]))
        elif self._all_say_yes("confirm-promotion"):
            # The primary runs the canary's pods, and the traffic goes back to it.
            self._move(0)
            self._end("Succeeded")
        else:
            status["phase"] = "WaitingPromotion"

    def _move(self, weight: int) -> None:
        self.set_weight(weight)
        self.status["canaryWeight"] = weight

    def _end(self, phase: str) -> None:
        self.status["phase"] = phase
        self._all_say_yes("post-rollout")

    def _all_say_yes(self, kind: str) -> bool:
        hooks = [hook for hook in self.canary["spec"]["analysis"]["webhooks"] if hook["type"] == kind]
        return bool(hooks) and all(self._says_yes(hook) for hook in hooks)

    def _says_yes(self, hook: Mapping[str, Any]) -> bool:
        metadata = self.canary["metadata"]
        payload = {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "phase": self.status["phase"],
            "checksum": "85d557f47b",
            "metadata": hook["metadata"],
        }
        timeout = float(hook["timeout"].removesuffix("s"))
        answer = requests.post(hook["url"], json=payload, timeout=timeout)
        self.asked.append((hook["type"], answer.status_code, answer.text))
        return answer.status_code <= 202
