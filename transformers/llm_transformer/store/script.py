"""A Lua script that runs in one round trip: by its digest, or whole where it is not known yet."""

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from llm_transformer.store.guard import Client


class Script:
    """All `keys` of a call must have one hash tag, for a Cluster runs a script on one node."""

    def __init__(self, text: str) -> None:
        self._text = text
        # The digest by which Redis names scripts; nothing secret.
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Client, keys: Sequence[str], args: Sequence[object]) -> Any:
        """What the script returns."""
        numbered: list[Any] = [len(keys), *keys, *args]
        try:
            return await client.execute_command("EVALSHA", self._digest, *numbered)
        except NoScriptError:
            return await client.execute_command("EVAL", self._text, *numbered)
