"""Hands waiting requests to the threads that predict: one at a time, or all that wait together.

No request waits for others to come: a thread that is free takes what is there, which is all that has arrived and not
only what has been read. While it predicts, requests gather, and the next free thread takes them together; so the
batches grow with the load, and only then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .errors import RequestRefused, places_of
from .model import Outcome
from .questions import Answer, Request

Answering = Callable[[Sequence[Request]], Iterable[list[tuple[int, Outcome]]]]

# Together no more than this: what one batch may hold of memory, and how long its first request may wait for
# its last one's rows.
MAX_REQUESTS = 64
MAX_BYTES = 1 << 20

# A request that has arrived is read in one turn of the event loop, submitted in the next, and seen in the one after.
_QUIET_TURNS = 3
# Reading goes on for no longer, while a thread is free.
_MAX_TURNS = 32

log = logging.getLogger("mlcicd.server")


@dataclass
class _Waiting:
    request: Request
    future: asyncio.Future[Answer]


class Batcher:
    """The queue in front of the prediction threads. All but `_work` runs in the event loop.

    Args:
        answer: answers requests by position (`Model.answer`), in a thread.
        pool: the threads.
        threads: how many there are.
        together: whether several requests may be handed over at once.
    """

    def __init__(self, answer: Answering, pool: ThreadPoolExecutor, threads: int, *, together: bool) -> None:
        self._answer = answer
        self._pool = pool
        self._free = threads
        self._together = together
        self._queue: deque[_Waiting] = deque()
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._reading = False
        self.batches = 0

    @property
    def pending(self) -> int:
        """Requests that wait or are being answered, those included that nobody waits for any more."""
        return len(self._queue) + self._running

    def submit(self, request: Request) -> asyncio.Future[Answer]:
        """The answer to come; its exception is a `RequestRefused`. Cancelling it before it starts drops it."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._queue.append(_Waiting(request, future))
        self._dispatch_soon()
        return future

    def _dispatch_soon(self) -> None:
        """Hands over what waits; requests that may go in together, when those that have arrived are read."""
        if not self._together:
            self._dispatch()
        elif self._free and self._queue and not self._reading:
            self._reading = True
            self._loop.call_soon(self._read_on, len(self._queue), _QUIET_TURNS, _MAX_TURNS)

    def _read_on(self, seen: int, quiet: int, turns: int) -> None:
        """Gives the event loop another turn, which costs microseconds when there is nothing to read."""
        waiting = len(self._queue)
        quiet = quiet - 1 if waiting == seen else _QUIET_TURNS
        if quiet and turns and waiting < MAX_REQUESTS:
            self._loop.call_soon(self._read_on, waiting, quiet, turns - 1)
        else:
            self._reading = False
            self._dispatch()

    def _dispatch(self) -> None:
        while self._free and self._queue:
            group = self._take()
            if group:
                self._free -= 1
                self._running += len(group)
                self.batches += 1
                self._pool.submit(self._work, group)

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._queue and len(group) < (MAX_REQUESTS if self._together else 1):
            size += len(self._queue[0].request.body)
            if group and size > MAX_BYTES:
                break
            waiting = self._queue.popleft()
            # Nobody waits for one whose time is over.
            if not waiting.future.done():
                group.append(waiting)
        return group

    def _work(self, group: list[_Waiting]) -> None:
        open_ = set(range(len(group)))
        try:
            for outcomes in self._answer([waiting.request for waiting in group]):
                open_.difference_update(position for position, _ in outcomes)
                if open_ and outcomes:
                    self._deliver_soon([(group[position], outcome) for position, outcome in outcomes], done=False)
                elif outcomes:
                    self._deliver_soon([(group[position], outcome) for position, outcome in outcomes], done=True)
        except BaseException as error:
            # Its text may hold a value of a request.
            log.error("the server failed with %s at %s", type(error).__name__, places_of(error))
        if open_:
            defect = RequestRefused(500, "INTERNAL_ERROR", "the server failed to answer; its log says why")
            self._deliver_soon([(group[position], defect) for position in open_], done=True)

    def _deliver_soon(self, outcomes: list[tuple[_Waiting, Outcome]], *, done: bool) -> None:
        self._loop.call_soon_threadsafe(self._deliver, outcomes, done)

    def _deliver(self, outcomes: list[tuple[_Waiting, Outcome]], done: bool) -> None:
        for waiting, outcome in outcomes:
            self._running -= 1
            if waiting.future.done():
                continue
            if isinstance(outcome, RequestRefused):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)
        if done:
            self._free += 1
            self._dispatch_soon()
