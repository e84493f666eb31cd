"""The judge behind HTTP, in the forms in which two controllers ask.

Argo Rollouts' `web` provider reads JSON and compares a value of it: `GET /v1/argo?version=&champion=&percent=` answers
`{"answer": "wait" | "advance" | "fail", ...}`. Flagger's webhooks look at the status code alone: 200 is yes, 409 no.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlcicd.core.errors import ConfigError, InputError, MlcicdError, redact
from mlcicd.rollout.asked import Answer, Answered
from mlcicd.stages.canary_asked import Answers, Subject

_LARGEST_BODY = 64 << 10
# No more digits than any body could need, and ASCII's alone.
_LENGTH = re.compile(r"[0-9]{1,9}")
_SILENCE_S = 15.0
_FLAGGER = "/v1/flagger/"

Said = tuple[int, dict[str, Any]]
Hook = Callable[[dict[str, str], bytes], Said]


class Endpoint:
    """Turns requests into answers, one at a time.

    Args:
        answers: the judge.
        token: what requests must carry as bearer token; empty: nothing.
        say: told of defects.
    """

    def __init__(self, answers: Answers, *, token: str, say: Callable[[str], None]) -> None:
        self._answers = answers
        self._token = token
        self._say = say
        self._one_at_a_time = threading.Lock()

    def respond(self, method: str, target: str, authorization: str, body: bytes) -> Said:
        """Status code and document for a request."""
        try:
            parts = urlsplit(target)
        except ValueError:
            return 400, {"error": "the request's target is no address"}
        if parts.path == "/health":
            return 200, {"status": "ok", "environment": self._answers.environment}
        if self._token and not hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode()):
            return 401, {"error": "a bearer token is needed"}
        hook = self._hook(method, parts.path)
        if hook is None:
            return 404, {"error": f"there is no {method} {parts.path}"}
        return self._judged(hook, parts.query, body)

    def _judged(self, hook: Hook, query: str, body: bytes) -> Said:
        try:
            with self._one_at_a_time:
                return hook({key: values[-1] for key, values in parse_qs(query).items()}, body)
        except (InputError, ConfigError) as error:
            return 400, {"error": redact(error.one_line())}
        except MlcicdError as error:
            # Not a judgement: the controller asks again, and gives up by its own limits.
            self._say(error.one_line())
            return 503, {"error": redact(error.one_line())}
        except Exception:
            self._say(traceback.format_exc())
            return 500, {"error": "a defect of mlcicd; its log has more"}

    def _hook(self, method: str, path: str) -> Hook | None:
        if (method, path) == ("GET", "/v1/argo"):
            return self._argo
        if (method, path) == ("POST", "/v1/argo/promoted"):
            return self._argo_promoted
        hooks = {
            "rollout": self._flagger_rollout,
            "rollback": self._flagger_rollback,
            "confirm-traffic-increase": self._flagger_confirm,
            "confirm-promotion": self._flagger_confirm,
            "post-rollout": self._flagger_after,
        }
        return hooks.get(path.removeprefix(_FLAGGER)) if method == "POST" and path.startswith(_FLAGGER) else None

    # --- Argo Rollouts

    def _argo(self, query: dict[str, str], _body: bytes) -> Said:
        try:
            share = float(query.get("percent", "")) / 100
        except ValueError:
            share = math.nan
        if not 0.0 <= share <= 1.0:
            raise InputError("percent has to be the canary's percent of the traffic, from 0 to 100")
        return 200, _document(self._answers.ask(_subject(query), share), share)

    def _argo_promoted(self, query: dict[str, str], _body: bytes) -> Said:
        return 200, _document(self._answers.promoted(_subject(query)), 1.0)

    # --- Flagger

    def _flagger_rollout(self, _query: dict[str, str], body: bytes) -> Said:
        """Whether the version can be judged at all: what fails is counted by Flagger, up to its threshold."""
        answered, share = self._flagger_asked(body)
        return 200, _document(answered, share)

    def _flagger_rollback(self, _query: dict[str, str], body: bytes) -> Said:
        answered, share = self._flagger_asked(body)
        return 200 if answered.answer is Answer.FAIL else 409, _document(answered, share)

    def _flagger_confirm(self, _query: dict[str, str], body: bytes) -> Said:
        answered, share = self._flagger_asked(body)
        return 200 if answered.answer is Answer.ADVANCE else 409, _document(answered, share)

    def _flagger_after(self, _query: dict[str, str], body: bytes) -> Said:
        payload = _payload(body)
        subject = _subject(payload["metadata"])
        if payload.get("phase") == "Succeeded":
            answered = self._answers.promoted(subject)
            return 200 if answered.answer is Answer.ADVANCE else 409, _document(answered, 1.0)
        return 200, _document(self._answers.withdrawn(subject, "Flagger took the version back"), 0.0)

    def _flagger_asked(self, body: bytes) -> tuple[Answered, float]:
        payload = _payload(body)
        # The webhooks do not say which weight the canary has.
        share_of = self._answers.share_of
        if share_of is None:
            raise ConfigError(
                "Flagger's weight can not be known here",
                remedy="let the environment be one of the target `kubernetes`, with the namespace of the Canary",
            )
        share = share_of(str(payload.get("name", "")))
        return self._answers.ask(_subject(payload["metadata"]), share), share


def _subject(values: dict[str, Any]) -> Subject:
    return Subject(
        version=str(values.get("version", "")),
        champion=str(values.get("champion", "")),
        attempt=str(values.get("attempt", "1")),
    )


def _payload(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("the body is not JSON", why=str(error)) from error
    if not isinstance(payload, dict) or not isinstance(payload.get("metadata"), dict):
        raise InputError("this is no webhook of Flagger's: it has no metadata")
    return payload


def _document(answered: Answered, share: float) -> dict[str, Any]:
    """What is answered: short enough to be shown whole in an AnalysisRun."""
    state, decision = answered.outcome.state, answered.outcome.decision
    requests, errors = state.served
    return {
        "answer": answered.answer.value,
        "reason": redact(answered.reason),
        "version": state.version,
        "champion": state.champion,
        "percent": round(100 * share, 3),
        "action": decision.action.value,
        "windows": decision.windows,
        "requests": requests,
        "errors": errors,
        "e_values": {item.name: float(f"{item.e_value:.4g}") for item in decision.metrics},
    }


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = _SILENCE_S
        server_version, sys_version = "mlcicd", ""

        def _serve(self) -> None:
            length = self.headers.get("content-length", "0")
            if not _LENGTH.fullmatch(length) or int(length) > _LARGEST_BODY or "transfer-encoding" in self.headers:
                self.close_connection = True
                self._say(413, {"error": f"a body has at most {_LARGEST_BODY} bytes, and says how many"})
                return
            body = self.rfile.read(int(length))
            authorization = self.headers.get("authorization", "")
            self._say(*endpoint.respond(self.command, self.path, authorization, body))

        do_GET = do_POST = _serve

        def _say(self, status: int, document: dict[str, Any]) -> None:
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Each answer that matters is said by the judge; health checks are not worth a line."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def make_server(endpoint: Endpoint, host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens already; port 0 lets the system choose.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    return _Server((host, port), _handler(endpoint))
