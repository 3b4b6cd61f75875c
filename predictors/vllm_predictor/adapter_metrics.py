"""What is counted for each adapter; its names come from the operator's catalog, so they are few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from openinference.errors import ServingError
from openinference.generation import Chunk

RESIDENT: Final = Gauge(
    "keepwarm_adapter_resident", "1 while the adapter is in the engine.", ["adapter"]
)
LOADS: Final = Counter(
    "keepwarm_adapter_loads", "Loads of an adapter, by outcome.", ["adapter", "outcome"]
)
EVICTIONS: Final = Counter(
    "keepwarm_adapter_evictions", "Adapters put out to make room for another.", ["adapter"]
)
LOAD_SECONDS: Final = Histogram(
    "keepwarm_adapter_load_seconds",
    "Seconds to check an adapter's files and to load them into the engine.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
REQUESTS: Final = Counter(
    "keepwarm_adapter_requests", "Requests for an adapter, by HTTP status.", ["adapter", "status"]
)
TOKENS: Final = Counter(
    "keepwarm_adapter_output_tokens", "Tokens generated with an adapter.", ["adapter"]
)


@contextmanager
def count_request(adapter: str) -> Iterator[Callable[[Chunk], None]]:
    """Counts one request and, through what it yields, the tokens of its chunks."""
    generated: dict[int, int] = {}

    def count(chunk: Chunk) -> None:
        generated[chunk.index] = chunk.num_output_tokens

    status = "200"
    try:
        yield count
    except ServingError as error:
        status = str(error.http_status)
        raise
    except GeneratorExit:
        status = "499"
        raise
    except BaseException:
        status = "500"
        raise
    finally:
        REQUESTS.labels(adapter, status).inc()
        TOKENS.labels(adapter).inc(sum(generated.values()))
