"""The meter of all replicas while Redis can be asked, a share of every limit while it cannot."""

from collections.abc import Callable

from llm_transformer.limits import metrics
from llm_transformer.limits.meter import Ask, Lease, LocalMeter, Meter
from llm_transformer.limits.rules import Verdict
from llm_transformer.store import StoreUnavailableError


class SharedMeter:
    """A meter in Redis; while it is away, this replica's share in process."""

    def __init__(self, shared: Meter, share: Callable[[], float]) -> None:
        """`share` is this replica's part of every limit, above 0 and at most 1."""
        self._shared = shared
        self._local = LocalMeter()
        self._share = share
        self._is_local = False
        self._local_leases: set[str] = set()

    async def reserve(self, ask: Ask) -> tuple[Verdict, Lease | None]:
        try:
            answer = await self._shared.reserve(ask)
        except StoreUnavailableError:
            self._tell(is_local=True)
            verdict, lease = await self._local.reserve(ask.within(self._share()))
            if lease is not None:
                self._local_leases.add(lease.id)
            return verdict, lease
        self._tell(is_local=False)
        return answer

    def settle(self, lease: Lease, tokens: int) -> None:
        if lease.id in self._local_leases:
            self._local_leases.discard(lease.id)
            self._local.settle(lease, tokens)
        else:
            self._shared.settle(lease, tokens)

    async def close(self) -> None:
        """Ends both."""
        await self._shared.close()

    def _tell(self, *, is_local: bool) -> None:
        if is_local != self._is_local:
            self._is_local = is_local
            metrics.LOCAL.set(is_local)
