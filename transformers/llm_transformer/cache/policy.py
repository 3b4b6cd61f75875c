"""What is kept, for how long, and for whom."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Times in seconds, sizes in bytes.

    A record lives for a time drawn from `ttl_least_s` to `ttl_most_s`, so that what was made
    together does not die together; an error for `negative_ttl_s`, where 0 is not at all.
    `by_tenant` keeps the answers of each tenant for itself. `flight_s` bounds a generation;
    `lease_s` is how long other replicas wait for one that has died.
    """

    by_tenant: bool = True
    ttl_least_s: float = 300.0
    ttl_most_s: float = 600.0
    negative_ttl_s: float = 60.0
    record_bytes: int = 2**20
    flight_s: float = 300.0
    lease_s: float = 3.0

    def draw_ttl_s(self) -> float:
        """The life of a new record."""
        return random.uniform(self.ttl_least_s, self.ttl_most_s)  # noqa: S311 (spread, no secret)

    def scope(self, tenant: str | None) -> str | None:
        """For whom an answer to `tenant` is; None is for everybody."""
        # An empty name is nobody's: header and key names have at least one character.
        return (tenant or "") if self.by_tenant else None
