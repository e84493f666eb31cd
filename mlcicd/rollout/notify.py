"""Telling people through a webhook: Slack's form of message, which Mattermost, Rocket.Chat, Discord (`/slack`) and
Google Chat take, too. Telling never decides, delays or fails a rollout.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from threading import Thread
from typing import Literal
from urllib.parse import urlsplit

import requests

from mlcicd.core.errors import ConfigError, redact

Event = Literal["start", "step", "hold", "promote", "rollback", "inconclusive"]
EVENTS: tuple[Event, ...] = ("start", "step", "hold", "promote", "rollback", "inconclusive")

# Slack cuts a message at 4,000 characters.
_LONGEST = 3000
_SAID: dict[Event, str] = {
    "start": "canary started",
    "step": "next traffic step",
    "hold": "canary on hold: somebody should look",
    "promote": "promoted",
    "rollback": "rolled back",
    "inconclusive": "taken back undecided",
}


@dataclass(frozen=True, slots=True)
class Notification:
    """What happened to a canary.

    Args:
        event: what kind of thing.
        model, version, environment: of the canary.
        sentence: why, in plain words.
        link: to the report or the job; empty when there is none.
    """

    event: Event
    model: str
    version: str
    environment: str
    sentence: str = ""
    link: str = ""

    def text(self) -> str:
        """One short message. Names and reasons come from other programs, so none of it can be markup, mention
        (`<!channel>`) or link; secrets in them are taken out."""
        head = f"{_plain(self.model)} version {_plain(self.version)} in {_plain(self.environment)}: {_SAID[self.event]}"
        parts = [head, _plain(self.sentence), _plain(self.link)]
        return "\n".join(part for part in parts if part)[:_LONGEST]


class Webhook:
    """An address that takes messages.

    Args:
        url: http(s). It is a secret: whoever has it can write there. It is in no message of ours.
        events: what is told; the others are passed over.
        timeout_s: the longest that telling may take, name lookup and a dripping answer included.

    Raises:
        ConfigError: not an http(s) URL.
    """

    def __init__(self, url: str, *, events: Collection[str] = EVENTS, timeout_s: float = 5.0) -> None:
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("the address of the webhook is not an http(s) URL", where="canary.webhook.url_env")
        self._url = url.strip()
        self._events = frozenset(events)
        self._timeout_s = timeout_s

    def tell(self, notification: Notification) -> str:
        """Sends one message, once: twice would be worse than not at all, since nothing depends on it.

        Returns:
            Empty when it arrived or was not asked for; else one line that says why it did not.
        """
        if notification.event not in self._events:
            return ""
        outcome: list[str] = []
        text = notification.text()
        thread = Thread(target=lambda: outcome.append(self._post(text)), daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        return outcome[0] if outcome else f"the webhook did not answer within {self._timeout_s:g} s"

    def _post(self, text: str) -> str:
        try:
            with requests.post(
                self._url,
                json={"text": text},
                headers={"user-agent": "mlcicd"},
                timeout=self._timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                if 200 <= response.status_code < 300:
                    return ""
                return f"the webhook answered with HTTP status {response.status_code}"
        except (requests.RequestException, ValueError) as error:
            # The message of the exception holds the address.
            return f"the webhook can not be reached ({type(error).__name__})"


def _plain(text: str) -> str:
    line = redact(" ".join("".join(c if c.isprintable() else " " for c in text).split()))[:1000]
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
