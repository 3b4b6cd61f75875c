"""Six shapes of traffic, with the published figures each was set to.

Azure: AzurePublicDataset's 2023 LLM traces (CC-BY 4.0; Splitwise, ISCA 2024). ServeGen: arXiv
2505.09999. The figures are restated; no data of either is in here.
"""

from dataclasses import dataclass

FLAT_DAY = (1.0,) * 24
FLAT_WEEK = (1.0,) * 7
# ServeGen's language models: 0.66 to 1.46 over the day, low before dawn, two humps.
SERVEGEN_DAY = (
    0.84, 0.76, 0.70, 0.67, 0.66, 0.67, 0.72, 0.80, 0.95, 1.12, 1.26, 1.30,
    1.16, 1.14, 1.30, 1.42, 1.46, 1.38, 1.18, 1.06, 1.02, 1.00, 0.95, 0.88,
)  # fmt: skip
OFFICE_DAY = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.04, 0.3, 1.4, 2.7, 3.0, 2.9,
    1.7, 2.3, 2.9, 2.8, 2.4, 1.2, 0.5, 0.2, 0.1, 0.05, 0.02, 0.0,
)  # fmt: skip
OFFICE_WEEK = (1.3, 1.4, 1.4, 1.35, 1.15, 0.06, 0.04)


@dataclass(frozen=True)
class Tokens:
    """Lognormal input with a Pareto tail; output of two exponentials; both cut at a maximum."""

    input_median: float
    input_sigma: float
    output_mean: float
    tail_share: float = 0.02
    tail_alpha: float = 2.5
    input_max: int = 32_000
    long_share: float = 0.0
    long_mean: float = 0.0
    output_max: int = 4_000


@dataclass(frozen=True)
class Flash:
    """Bursts that nobody announced: how many a week, how long, and how many times the mean."""

    per_week: float
    minutes: float
    height: float


@dataclass(frozen=True)
class Cron:
    """A job: `size` requests about every `period_s`, `offset_s` in, within `spread_s`."""

    period_s: float
    offset_s: float
    size: int
    spread_s: float
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Preset:
    """Traffic of `clients` with Zipf shares, each on and off, each with its own burstiness.

    `active` is the share of time a client is on, for `episode_s` at a time; its times between
    arrivals are Gamma or Weibull (`weibull_share`) with a CV drawn lognormally (`cv_median`,
    `cv_sigma`), at most `cv_max`.
    """

    name: str
    description: str
    mean_rps: float
    tokens: Tokens
    clients: int = 0
    zipf: float = 1.1
    active: float = 1.0
    episode_s: float = 1200.0
    cv_median: float = 1.2
    cv_sigma: float = 0.6
    cv_max: float = 30.0
    weibull_share: float = 0.2
    day: tuple[float, ...] = FLAT_DAY
    week: tuple[float, ...] = FLAT_WEEK
    flash: Flash | None = None
    crons: tuple[Cron, ...] = ()


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "chat-steady",
            "Many people chatting: never silent (Azure conv 2023, ServeGen's day).",
            mean_rps=5.5,
            tokens=Tokens(1020, 0.95, 250, input_max=14_000, output_max=700),
            clients=80,
            zipf=1.0,
            active=0.35,
            episode_s=900,
            cv_median=1.05,
            cv_sigma=0.15,
            day=SERVEGEN_DAY,
            week=(1.04, 1.06, 1.06, 1.05, 1.03, 0.9, 0.86),
        ),
        Preset(
            "code-bursty",
            "Code completion: volleys and silences (Azure code 2023).",
            mean_rps=2.57,
            tokens=Tokens(
                1480, 0.95, 13, input_max=7_437, tail_share=0.0, long_share=0.25, long_mean=73
            ),
            clients=5,
            zipf=0.9,
            active=0.22,
            episode_s=60,
            cv_median=5.5,
            cv_sigma=0.6,
        ),
        Preset(
            "internal-office-hours",
            "One company's assistant: weekdays from eight to six, next to nothing at night.",
            mean_rps=0.12,
            tokens=Tokens(1500, 1.1, 300),
            clients=60,
            zipf=1.1,
            active=0.3,
            episode_s=900,
            cv_median=1.3,
            cv_sigma=0.6,
            day=OFFICE_DAY,
            week=OFFICE_WEEK,
        ),
        Preset(
            "cron-batch",
            "Jobs on the clock: hourly, nightly and a weekly one; nothing in between.",
            mean_rps=0.0525,
            tokens=Tokens(2500, 0.6, 400),
            crons=(
                Cron(3600, 0, 40, 60),
                Cron(86_400, 2 * 3600, 2000, 900),
                Cron(86_400, 6 * 3600, 600, 300, (0, 1, 2, 3, 4)),
                Cron(7 * 86_400, 4 * 3600, 8000, 3600),
            ),
        ),
        Preset(
            "long-tail-idle",
            "A model that few call: hours of silence (ServeGen's sporadic clients of m-mid).",
            mean_rps=0.083,
            tokens=Tokens(2200, 0.9, 600),
            clients=5,
            zipf=1.0,
            active=0.11,
            episode_s=4200,
            cv_median=2.5,
            cv_sigma=0.6,
            day=SERVEGEN_DAY,
        ),
        Preset(
            "flash-crowd",
            "Steady and small, then a link goes round: ten times the load within a minute.",
            mean_rps=1.0,
            tokens=Tokens(600, 0.8, 200),
            clients=200,
            zipf=1.0,
            active=0.4,
            episode_s=1800,
            cv_median=1.1,
            cv_sigma=0.3,
            day=SERVEGEN_DAY,
            flash=Flash(per_week=5, minutes=12, height=10),
        ),
    )
}
