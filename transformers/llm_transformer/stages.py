"""The protective stages put together from the settings: keys, the shared Redis, limits.

What cannot work is refused with a sentence before anything is served.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from llm_transformer.auth import ANONYMOUS, Authenticator
from llm_transformer.forward import Forward
from llm_transformer.limits.addresses import ClientAddresses
from llm_transformer.limits.census import Census
from llm_transformer.limits.meter import LocalMeter, Meter
from llm_transformer.limits.plans import Plans, UnusablePlansError, read
from llm_transformer.limits.redis_meter import RedisMeter
from llm_transformer.limits.shared_meter import SharedMeter
from llm_transformer.limits.stage import LimitStage
from llm_transformer.models import ModelTable, model_table
from llm_transformer.settings import TransformerSettings
from llm_transformer.store import RedisAddress, Store, UnusableAddressError, connect
from llm_transformer.yaml_file import UnusableFileError
from openinference.api_keys import KeyRing
from openinference.key_file import UnusableKeyFileError


@dataclass(frozen=True, slots=True)
class Protection:
    """Who may call, and how much."""

    auth: Authenticator
    limits: LimitStage | None


def served_models(settings: TransformerSettings) -> ModelTable:
    """Which predictor answers for which name."""
    try:
        return model_table(settings)
    except UnusableFileError as error:
        _refuse(f"--models_file: {error}")


@asynccontextmanager
async def shared_store(settings: TransformerSettings) -> AsyncIterator[Store | None]:
    """The Redis that `--redis_url` names, whether it answers or not; None without the flag."""
    if settings.redis_url is None:
        yield None
        return
    try:
        address = RedisAddress.parse(settings.redis_url)
    except UnusableAddressError as error:
        _refuse(f"--redis_url {error}")
    store = connect(address, timeout_s=settings.redis_timeout_s)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def protection(
    settings: TransformerSettings, forward: Forward, store: Store | None
) -> AsyncIterator[Protection]:
    """Auth, and limits in front of `forward`."""
    plans = _plans(settings)
    auth = _authenticator(settings, plans)
    auth.start()
    try:
        if plans is None:
            yield Protection(auth, None)
            return
        async with _meter(settings, store) as meter:
            yield Protection(
                auth,
                LimitStage(
                    forward,
                    meter,
                    plans,
                    addresses=_addresses(settings),
                    template_tokens=settings.template_tokens,
                    longest_request_s=settings.longest_request_s,
                ),
            )
    finally:
        await auth.close()


def _plans(settings: TransformerSettings) -> Plans | None:
    if settings.plans_file is None:
        return None
    try:
        plans = read(Path(settings.plans_file))
        if settings.allow_anonymous:
            plans.check_names([ANONYMOUS.plan])
    except UnusablePlansError as error:
        _refuse(f"--plans_file: {error}")
    return plans


def _authenticator(settings: TransformerSettings, plans: Plans | None) -> Authenticator:
    def check(ring: KeyRing) -> None:
        if plans is not None:
            plans.check_names(ring.plans)

    if settings.keys_file is None and not settings.allow_anonymous:
        _refuse(
            "nobody could call: give --keys_file (keepwarm keys create makes one), or "
            "--allow_anonymous to answer everybody"
        )
    path = None if settings.keys_file is None else Path(settings.keys_file)
    try:
        return Authenticator(path, allow_anonymous=settings.allow_anonymous, check=check)
    except UnusableKeyFileError as error:
        _refuse(f"--keys_file: {error}")


@asynccontextmanager
async def _meter(settings: TransformerSettings, store: Store | None) -> AsyncIterator[Meter]:
    if store is None:
        yield LocalMeter()
        return
    census = Census(store, settings.redis_replicas)
    census.start()
    meter = SharedMeter(RedisMeter(store), lambda: census.share)
    try:
        yield meter
    finally:
        await meter.close()
        await census.close()


def _addresses(settings: TransformerSettings) -> ClientAddresses:
    try:
        return ClientAddresses(settings.trusted_proxies)
    except ValueError as error:
        _refuse(f"--trusted_proxies: {error}")


def _refuse(sentence: str) -> NoReturn:
    raise SystemExit(f"llm_transformer: {sentence}")
