"""What a request asks, whichever protocol it came by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """A prediction request as it came: its protocol (`invocations` or `v2`) and its whole body."""

    protocol: str
    body: bytes
    content_type: str


@dataclass(frozen=True)
class Answer:
    """A body to send, and the numbers in it for the score histogram."""

    body: bytes
    scores: list[float]


@dataclass(frozen=True)
class Question:
    """A request that was read.

    Attributes:
        data: a `Table`, or whatever else the model's `predict` is given.
        params: MLflow's inference parameters; None when there are none.
        payload: the parsed body, of CSV the bytes, whose strings no message may repeat.
        write: makes the answer's body of predictions.
    """

    data: Any
    params: Any
    payload: Any
    write: Callable[[Any], Answer]
