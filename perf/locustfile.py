"""Locust in the scenarios baseline (50-200 requests/s), peak (500-1000) and limit (1000-2000).

`make locust`, or `locust -f perf/locustfile.py --scenario peak --host URL`. Requests are those of
`load.py`: short, medium and long prompts at 3:2:1 with 50, 100 and 200 tokens. Each user sends at a
fixed pace and waits for its answer, so a server slower than that pace is offered less than the
scenario says; `load.py` does not wait. Times to the first token and between tokens are
entries of their own beside the requests.
"""

import itertools
import random
import time
from typing import TYPE_CHECKING

from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from protocols import PROTOCOLS, Ask, encoded
from schedule import MIX, SCENARIOS, Planned, Shape, rate_at
from sse import EventReader

if TYPE_CHECKING:
    from geventhttpclient.response import HTTPSocketResponse

NAMES = dict(zip(MIX, ("short", "medium", "long"), strict=True))
_numbers = itertools.count()


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add("--scenario", choices=SCENARIOS, default="baseline", env_var="SCENARIO")
    add("--protocol", choices=PROTOCOLS, default="chat", env_var="PROTOCOL")
    add("--model-name", default="model", env_var="MODEL")
    add(
        "--stage-seconds",
        type=float,
        default=10.0,
        env_var="STAGE_SECONDS",
        help="how long each step of the scenario lasts",
    )
    add(
        "--scale",
        type=float,
        default=1.0,
        env_var="SCALE",
        help="share of the scenario's rates, for machines that cannot take them",
    )
    add(
        "--user-rate",
        type=float,
        default=0.5,
        env_var="USER_RATE",
        help="requests a second that one user sends; slower answers than 1/rate lower the load",
    )


class Scenario(LoadTestShape):
    """Steps of the chosen scenario: so many users that together they send its rate."""

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        rate = rate_at(options.scenario, self.get_run_time(), options.stage_seconds)
        if rate is None:
            return None
        users = max(1, round(rate * options.scale / options.user_rate))
        # All of a step at once.
        return users, users


class Caller(FastHttpUser):
    """Asks one prompt after the other, no two alike, at its pace."""

    connection_timeout = network_timeout = 60.0

    def wait_time(self) -> float:
        """Locust asks this between tasks."""
        pace = constant_throughput(self.environment.parsed_options.user_rate)
        return float(pace(self))

    def on_start(self) -> None:
        """Waits for a part of its pace, so that users who came together do not send together."""
        time.sleep(random.random() / self.environment.parsed_options.user_rate)  # noqa: S311

    @task(int(MIX[0].weight))
    def short(self) -> None:
        self._ask(MIX[0])

    @task(int(MIX[1].weight))
    def medium(self) -> None:
        self._ask(MIX[1])

    @task(int(MIX[2].weight))
    def long(self) -> None:
        self._ask(MIX[2])

    def _ask(self, shape: Shape) -> None:
        options = self.environment.parsed_options
        protocol = PROTOCOLS[options.protocol]
        # Another run, or another worker, asks other prompts: a cache must not know them.
        name = f"{id(self):x}-{time.time_ns():x}-{next(_numbers)}"
        planned = Planned(0.0, name, shape.prompt_tokens, shape.output_tokens)
        path, body = encoded(protocol, Ask(options.model_name), planned)
        began = time.perf_counter()
        with self.client.post(
            path,
            data=body,
            headers={"content-type": "application/json"},
            name=NAMES[shape],
            stream=protocol.streams,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif not protocol.streams:
                response.success()
            else:
                reader = EventReader(protocol.has_text)
                first = self._read(response.stream, reader)
                ended = time.perf_counter()
                problem = _problem(reader, first)
                # Locust's own clock has stopped at the headers.
                response.request_meta["response_time"] = (ended - began) * 1e3
                if problem:
                    response.failure(problem)
                else:
                    response.success()
                    self._tell("TTFT", shape, first - began)
                    self._tell("ITL", shape, (ended - first) / (shape.output_tokens - 1))

    def _read(self, stream: "HTTPSocketResponse", reader: EventReader) -> float:
        """Reads all events; when the first with text came, 0 when none did."""
        first = 0.0
        while event := stream.readline(b"\n\n"):
            reader.feed(bytes(event))
            if not first and reader.begun:
                first = time.perf_counter()
        return first

    def _tell(self, what: str, shape: Shape, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type=what,
            name=NAMES[shape],
            response_time=seconds * 1e3,
            response_length=0,
            exception=None,
            context={},
        )


def _problem(reader: EventReader, first: float) -> str:
    """Why a stream is no answer; empty when it is one."""
    if any("error" in event for event in reader.last()):
        return "an error event"
    return "" if first else "no text"
