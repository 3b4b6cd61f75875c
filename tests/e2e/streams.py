"""Callers that stream through the ingress, one request after another, and note how each ended.

Nothing is repeated here: what a caller was told is what a caller would have seen.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from .conftest import SERVICE, Chat

# After a refusal; a caller in a hurry would only be refused again.
PAUSE_S = 0.5


@dataclass(frozen=True)
class Stream:
    """One request: when it ran (monotonic clock), what came, and what was wrong with it, or ""."""

    prompt: str
    began: float
    first_event: float | None
    ended: float
    text: str
    problem: str


class Streams:
    """N callers at a time; leaving it lets each finish what it has begun."""

    def __init__(
        self,
        chat: Chat,
        *,
        callers: int,
        tokens: int,
        answer: Callable[[str, int], str] | None = None,
    ) -> None:
        """`answer(prompt, tokens)` is the text that each stream must bring, where that is known."""
        self._chat = chat
        self._tokens = tokens
        self._answer = answer
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(callers)
        ]
        self.told: list[Stream] = []
        self.flowing: set[str] = set()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """No caller asks again."""
        self._stopping.set()

    @property
    def broken(self) -> list[Stream]:
        """Those that did not end as they must."""
        return [stream for stream in self.told if stream.problem]

    def _call(self, caller: int) -> None:
        with self._chat.client() as client:
            for turn in itertools.count():
                stream = self._ask(client, f"caller {caller}, question {turn}")
                self.told.append(stream)
                self.flowing.discard(stream.prompt)
                if self._stopping.wait(PAUSE_S if stream.problem else 0):
                    return

    def _ask(self, client: httpx.Client, prompt: str) -> Stream:
        began, first, text, problem, finish = time.monotonic(), None, "", "", None
        body = {
            "text_input": prompt,
            "parameters": {"max_tokens": self._tokens, "temperature": 0, "ignore_eos": True},
        }
        try:
            with client.stream(
                "POST", f"/v2/models/{SERVICE}/generate_stream", json=body
            ) as response:
                if response.status_code != 200:
                    problem = f"{response.status_code} {response.read().decode()}"
                for line in response.iter_lines():
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        problem = f"error event: {event['error']}"
                        continue
                    first = first or time.monotonic()
                    self.flowing.add(prompt)
                    text += event["text_output"]
                    finish = event.get("finish_reason", finish)
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
        if not problem and finish != "length":
            problem = "ended without a word"
        if not problem and self._answer and text != self._answer(prompt, self._tokens):
            problem = "not the answer"
        return Stream(prompt, began, first, time.monotonic(), text, problem)
