"""Tells who calls from the key that came along, against a file that may change at any time.

A changed file is read again within a second, also behind the symbolic link that Kubernetes swaps
when a mounted Secret changes. A file that cannot be used is logged and the last good keys stay.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llm_transformer.auth import metrics
from llm_transformer.auth.identity import ANONYMOUS, Identity
from openinference.api_keys import KeyRing, is_key
from openinference.context import RequestContext
from openinference.errors import PermissionDenied, Unauthenticated
from openinference.key_file import UnusableKeyFileError, parse

logger = logging.getLogger("llm_transformer.auth")

POLL_S: Final = 1.0
# One sentence for every reason: no key, an unknown one, a wrong one, one that is not valid now.
_REFUSAL: Final = "a valid API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
Signature = tuple[int, int, int, int] | None


class Authenticator:
    """Without a key file everybody is anonymous; with one, callers without a key may be.

    What does not look like a key of ours is none: SDKs that insist on a key are given "none".
    """

    def __init__(
        self,
        path: Path | None,
        *,
        allow_anonymous: bool,
        check: Callable[[KeyRing], None] = lambda _: None,
    ) -> None:
        """`check` raises ValueError for keys that must not be used (of an unknown plan, say).

        Raises UnusableKeyFileError, a ValueError, when the file cannot be used.
        """
        self._path = path
        self._allow_anonymous = allow_anonymous
        self._check = check
        self._ring = KeyRing(())
        self._identities: dict[str, Identity] = {}
        self._task: asyncio.Task[None] | None = None
        self._seen: Signature = None
        if path is not None:
            self._seen = _signature(path)
            self._use(self._read(path))

    def start(self) -> None:
        """Begins to watch the file."""
        if self._path is not None:
            self._task = asyncio.get_running_loop().create_task(self._watch(self._path))

    async def close(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def identify(self, context: RequestContext, model: str) -> Identity:
        """Who calls; raises Unauthenticated or, when the key is not for `model`, PermissionDenied.

        Whether there is such a model is not told to a key that is not for it.
        """
        identity = self._identity(context.caller.api_key)
        if identity is None:
            metrics.REFUSED.labels("401").inc()
            context.reply.headers["www-authenticate"] = "Bearer"
            raise Unauthenticated(_REFUSAL)
        if not identity.may_use(model):
            metrics.REFUSED.labels("403").inc()
            raise PermissionDenied("your API key is not for this model")
        return identity

    def _identity(self, text: str | None) -> Identity | None:
        if self._path is None:
            return ANONYMOUS
        key = None if text is None else self._ring.find(text)
        if key is not None:
            return self._identities[key.id]
        is_none = text is None or not is_key(text)
        return ANONYMOUS if is_none and self._allow_anonymous else None

    async def _watch(self, path: Path) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            signature = _signature(path)
            if signature in (None, self._seen):
                continue
            self._seen = signature
            try:
                # Ten thousand keys take a while.
                ring = await asyncio.to_thread(self._read, path)
            except UnusableKeyFileError as error:
                metrics.RELOADS.labels("refused").inc()
                logger.error("%s; the keys read before stay in use", error)  # noqa: TRY400
            else:
                self._use(ring)
                metrics.RELOADS.labels("used").inc()
                logger.info("%s: %d keys", path, len(ring))

    def _read(self, path: Path) -> KeyRing:
        try:
            ring = KeyRing(parse(path.read_text(encoding="utf-8")))
            self._check(ring)
        except (OSError, ValueError) as error:
            raise UnusableKeyFileError(f"{path}: {error}") from None
        return ring

    def _use(self, ring: KeyRing) -> None:
        self._ring = ring
        self._identities = {
            key.id: Identity(key.id, key.tenant, key.plan, key.models, key.priority) for key in ring
        }
        metrics.KEYS.set(len(ring))
        metrics.LOADED.set(time.time())


def _signature(path: Path) -> Signature:
    """What differs when the file does; None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
