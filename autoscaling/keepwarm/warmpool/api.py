"""The WarmPool object as typed values, after the CRD in `manifests/components/warm-pool/crd.yaml`.

Everything the API server would refuse is refused here too, so a tool that builds a WarmPool learns
of a mistake without a cluster.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from keepwarm.warmpool import durations

GROUP = "autoscaling.keepwarm.dev"
API_VERSION = f"{GROUP}/v1alpha1"
KIND = "WarmPool"
WAKE = f"{GROUP}/wake"
# A controller for all must not spend seconds on the schedule of one.
MOST_CHANGES = 2000

Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[Day, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class InvalidWarmPool(Exception):
    """A sentence that names the field and what is allowed there."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    # ValueError: a path; OSError: a folder such as "Europe". ZoneInfoNotFoundError is a KeyError.
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no IANA time zone such as Europe/Berlin or UTC") from None
    return name


def _cron(line: str) -> str:
    if len(line.split()) != 5:
        raise ValueError("a cron line has five fields: minute, hour, day, month, weekday")
    try:
        CronSim(line, datetime(2026, 1, 1))  # noqa: DTZ001 (only parsed)
    except CronSimError as error:
        raise ValueError(f"{line!r} is no cron line: {error}") from None
    return line


@dataclass(frozen=True)
class _Between:
    """Marks a duration, read from and written as text, that has bounds."""

    least: str
    most: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(durations.show),
        )

    def _read(self, value: object) -> timedelta:
        read = durations.parse(value) if isinstance(value, str) else value
        if not isinstance(read, timedelta):
            raise ValueError(f"{value!r} is no duration such as 90s, 10m or 1h30m")  # noqa: TRY004
        if not durations.parse(self.least) <= read <= durations.parse(self.most):
            raise ValueError(f"must be between {self.least} and {self.most}")
        return read


Replicas = Annotated[int, Field(ge=0, le=1000)]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_zone)]
Cron = Annotated[str, Field(max_length=128), AfterValidator(_cron)]
WindowName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
UpToHour = Annotated[timedelta, _Between("0s", "1h")]
UpToDay = Annotated[timedelta, _Between("0s", "24h")]
StableWindow = Annotated[timedelta, _Between("6s", "1h")]
Step = Annotated[timedelta, _Between("1s", "1h")]
Length = Annotated[timedelta, _Between("1m", "168h")]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class Target(_Part):
    """The InferenceService, in the object's namespace, and which of its components."""

    inference_service: str = Field(max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    component: Literal["predictor", "transformer", "explainer"] = "predictor"

    @property
    def service(self) -> str:
        """The component's Knative Service."""
        return f"{self.inference_service}-{self.component}"


class Knobs(_Part):
    """Live settings of a Revision besides its minimum."""

    target: float | None = Field(default=None, ge=0.01)
    target_utilization_percentage: float | None = Field(default=None, ge=1, le=100)
    target_burst_capacity: float | None = Field(default=None, ge=-1)
    window: StableWindow | None = None
    scale_down_delay: UpToHour | None = None
    scale_to_zero_pod_retention_period: UpToHour | None = None

    @model_validator(mode="after")
    def _burst(self) -> Self:
        burst = self.target_burst_capacity
        if burst is not None and -1 < burst < 0:
            raise ValueError("targetBurstCapacity is -1 or not negative")
        return self


class Window(_Part):
    """A time that comes again: `days`, `start` and `end`, or `cron` and `duration`."""

    name: WindowName
    replicas: Replicas
    days: tuple[Day, ...] | None = Field(default=None, min_length=1, max_length=7)
    start: str | None = Field(default=None, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    end: str | None = Field(default=None, pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
    cron: Cron | None = None
    duration: Length | None = None
    time_zone: Zone | None = None
    knobs: Knobs | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.cron is None) == (self.start is None):
            raise ValueError("a window has either start and end, or cron and duration")
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end go together")
        if (self.cron is None) != (self.duration is None):
            raise ValueError("cron and duration go together")
        if self.cron is not None and self.days is not None:
            raise ValueError("days belongs to start and end; a cron line names its own days")
        if self.days is not None and len(set(self.days)) != len(self.days):
            raise ValueError("a day is named twice")
        return self

    @property
    def starts_a_day(self) -> int:
        """How often it starts on a day on which it does."""
        if self.cron is None:
            return 1
        line = CronSim(self.cron, datetime(2026, 1, 1))  # noqa: DTZ001 (only parsed)
        return len(line.minutes) * len(line.hours)


class _Interval(_Part):
    start: AwareDatetime
    end: AwareDatetime
    replicas: Replicas

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self


class Once(_Interval):
    """A window that happens once; `exclusive`, windows, forecast and floor wait until its end."""

    name: WindowName
    exclusive: bool = False
    knobs: Knobs | None = None


class Forecast(_Interval):
    """An interval for which the tuner expects to need `replicas`."""


class Lead(_Part):
    """How long before a window its replicas are asked for: `fixed`, or as measured."""

    fixed: UpToDay | None = None
    initial: UpToDay | None = None
    max: UpToDay | None = None
    margin: UpToDay | None = None

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.fixed is not None and (self.initial or self.max or self.margin):
            raise ValueError(
                "fixed stands alone; initial, max and margin belong to a measured lead"
            )
        return self


class Ramp(_Part):
    """Steps of `step` replicas every `interval` up to a window, and `down` after it."""

    step: int = Field(ge=1, le=1000)
    interval: Step
    down: bool = False

    def steps(self, replicas: int, floor: int) -> int:
        """Steps below `replicas` that are still above `floor`."""
        return max(ceil((replicas - floor) / self.step) - 1, 0)


class Prewarm(_Part):
    """What forecasts and wakes may do."""

    max_replicas: Replicas | None = None
    max_wake: UpToDay | None = None
    forecast: tuple[Forecast, ...] = Field(default=(), max_length=512)


class Price(_Part):
    """What one replica costs an hour."""

    per_replica_hour: float = Field(ge=0)
    currency: str = Field(default="USD", max_length=8)


class Spec(_Part):
    """What is kept warm, when. Field by field: the CRD's descriptions."""

    target: Target
    time_zone: Zone = "UTC"
    floor: Replicas = 0
    ceiling: Replicas | None = None
    windows: tuple[Window, ...] = Field(default=(), max_length=64)
    once: tuple[Once, ...] = Field(default=(), max_length=64)
    lead: Lead = Lead()
    ramp: Ramp | None = None
    knobs: Knobs | None = None
    prewarm: Prewarm = Prewarm()
    when_not_live: Literal["Report", "MinReplicas"] = "Report"
    on_conflict: Literal["Report", "Force"] = "Report"
    suspend: bool = False
    dry_run: bool = False
    price: Price | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.ceiling is not None and self.ceiling < self.floor:
            raise ValueError("floor must not exceed ceiling")
        for field, listed in (("windows", self.windows), ("once", self.once)):
            names = [window.name for window in listed]
            if len(set(names)) != len(names):
                raise ValueError(f"two of {field} have the same name")
        if self.changes_a_day > MOST_CHANGES:
            raise ValueError(
                f"the windows, with their ramps, change {self.changes_a_day} times a day;"
                f" at most {MOST_CHANGES} are allowed"
            )
        return self

    @property
    def changes_a_day(self) -> int:
        """Bounds how often the windows can change anything on one day, their ramps included."""
        floor, ramp = self.floor, self.ramp
        return sum(
            window.starts_a_day * (1 + (ramp.steps(window.replicas, floor) if ramp else 0))
            for window in self.windows
        )

    @classmethod
    def of(cls, value: object) -> Self:
        """The spec of a decoded object. Raises InvalidWarmPool."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise InvalidWarmPool("; ".join(map(_sentence, error.errors()))) from None


def manifest(
    name: str,
    spec: Spec,
    *,
    namespace: str | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The object to apply: what is absent or default is left out."""
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    body = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": body}


def _sentence(problem: Any) -> str:
    place = ".".join(("spec", *map(str, problem["loc"])))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}"
