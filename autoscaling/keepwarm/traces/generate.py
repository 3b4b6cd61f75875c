"""Requests of a preset: clients composed as ServeGen measured them, not one Poisson stream.

Each client is a renewal process in operational time (Gamma or Weibull, its own CV), mapped to the
clock through its cumulative rate: share x day x weekday x its own on and off x flash bursts.
ServeGen found that a plain Poisson trace under-provisions by up to half.
"""

import math
from datetime import UTC, datetime

import numpy as np

from keepwarm.traces.presets import Preset
from keepwarm.traces.trace import DAY_S, WEEK_S, Floats, Ints, Trace

CELL_S = 30.0
# Without a start the trace begins on a Monday, so days and hours mean what the preset says.
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def generate(
    preset: Preset,
    *,
    duration_s: float,
    seed: int = 0,
    start: datetime = MONDAY,
    mean_rps: float | None = None,
) -> Trace:
    """The trace, the same for the same arguments; `mean_rps` scales the clients or jobs."""
    random = np.random.default_rng(np.random.SeedSequence([seed, *preset.name.encode()]))
    factor = 1.0 if mean_rps is None else mean_rps / preset.mean_rps
    monday_s = start.weekday() * DAY_S + start.hour * 3600 + start.minute * 60 + start.second
    parts = [_cron(preset, duration_s, monday_s, factor, random)]
    if preset.clients:
        rate = _rate(preset, duration_s, monday_s, random) * preset.mean_rps * factor
        parts += _clients(preset, rate, duration_s, random)
    arrival = np.sort(np.concatenate(parts))
    inputs, outputs = _tokens(preset, len(arrival), random)
    return Trace(f"{preset.name} (seed {seed})", arrival, inputs, outputs, duration_s, start)


def cv_of_weibull(shape: float) -> float:
    """The coefficient of variation of a Weibull distribution."""
    first, second = math.lgamma(1 + 1 / shape), math.lgamma(1 + 2 / shape)
    return math.sqrt(max(0.0, math.expm1(second - 2 * first)))


def weibull_shape(cv: float) -> float:
    """The shape that has this CV, by bisection: CV falls from infinity to 0 as shape rises."""
    low, high = 0.05, 50.0
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cv_of_weibull(middle) > cv else (low, middle)
    return math.sqrt(low * high)


def _rate(
    preset: Preset, duration_s: float, monday_s: float, random: np.random.Generator
) -> Floats:
    """The shared rate per cell, about 1 on average over a week. [cells]."""
    at = monday_s + (np.arange(math.ceil(duration_s / CELL_S)) + 0.5) * CELL_S
    day, week = np.asarray(preset.day), np.asarray(preset.week)
    # Hours are joined by straight lines, from the middle of one to the middle of the next.
    hour = (at / 3600 - 0.5) % 24
    here = hour.astype(np.int64)
    shape = day[here] + (day[(here + 1) % 24] - day[here]) * (hour - here)
    rate = shape / day.mean() * week[(at // DAY_S % 7).astype(np.int64)] / week.mean()
    if preset.flash is None:
        return np.asarray(rate)
    flashes = random.poisson(preset.flash.per_week * duration_s / WEEK_S)
    cell_minutes = CELL_S / 60
    for begin in random.integers(0, len(at), flashes):
        cells = np.arange(begin, len(at))
        # Up within a minute, then an exponential tail.
        age = (cells - begin) * cell_minutes
        rate[begin:] += (
            preset.flash.height
            * np.minimum(1.0, age + cell_minutes)
            * np.exp(-age / preset.flash.minutes)
        )
    return np.asarray(rate)


def _clients(
    preset: Preset, rate: Floats, duration_s: float, random: np.random.Generator
) -> list[Floats]:
    share: Floats = 1 / np.arange(1, preset.clients + 1, dtype=np.float64) ** preset.zipf
    share = share / share.sum()
    found = []
    for weight in share:
        own = rate * weight * _on(preset, len(rate), random) / preset.active
        passed: Floats = np.concatenate(([0.0], np.cumsum(own) * CELL_S))
        if passed[-1] <= 0:
            continue
        due = _renewals(preset, float(passed[-1]), random)
        edges: Floats = np.arange(len(passed)) * np.float64(CELL_S)
        found.append(_clock(due, passed, edges))
    return [part[part < duration_s] for part in found]


def _clock(due: Floats, passed: Floats, edges: Floats) -> Floats:
    """When the cumulative rate reaches `due`; where it stands still, at the end of the pause."""
    cell = np.clip(np.searchsorted(passed, due, side="right") - 1, 0, len(passed) - 2)
    step = passed[cell + 1] - passed[cell]
    inside = np.divide(due - passed[cell], step, out=np.zeros_like(due), where=step > 0)
    return np.asarray(edges[cell] + inside * CELL_S)


def _on(preset: Preset, cells: int, random: np.random.Generator) -> Floats:
    """1 where the client is active: exponential episodes with exponential pauses. [cells]."""
    if preset.active >= 1:
        return np.ones(cells)
    on_s, off_s = preset.episode_s, preset.episode_s * (1 / preset.active - 1)
    pairs = int(cells * CELL_S / (on_s + off_s) * 2) + 20
    lengths = np.empty(2 * pairs)
    first_on = bool(random.random() < preset.active)
    lengths[0::2] = random.exponential(on_s if first_on else off_s, pairs)
    lengths[1::2] = random.exponential(off_s if first_on else on_s, pairs)
    switches = np.cumsum(lengths)
    state = np.searchsorted(switches, (np.arange(cells) + 0.5) * CELL_S, side="right") % 2
    return np.asarray((state == (0 if first_on else 1)).astype(np.float64))


def _renewals(preset: Preset, total: float, random: np.random.Generator) -> Floats:
    """Event times in operational time, mean distance 1, up to `total`."""
    cv = float(
        np.clip(preset.cv_median * math.exp(preset.cv_sigma * random.normal()), 0.5, preset.cv_max)
    )
    weibull = random.random() < preset.weibull_share
    shape = weibull_shape(cv) if weibull else 1 / cv**2
    # Starting a few means before zero lets a silence be under way when the trace begins.
    lead = min(total, 20.0 * cv)
    at, found = -lead, []
    while at < total:
        size = int(total + lead + 10 * cv * math.sqrt(total + lead) + 100)
        steps = (
            random.weibull(shape, size) / math.gamma(1 + 1 / shape)
            if weibull
            else random.gamma(shape, 1 / shape, size)
        )
        times = at + np.cumsum(steps)
        found.append(times)
        at = float(times[-1])
    due = np.concatenate(found)
    return np.asarray(due[(due >= 0) & (due < total)])


def _cron(
    preset: Preset,
    duration_s: float,
    monday_s: float,
    factor: float,
    random: np.random.Generator,
) -> Floats:
    found = [np.empty(0)]
    for job in preset.crons:
        first = math.ceil((monday_s - job.offset_s) / job.period_s)
        last = math.floor((monday_s + duration_s - job.offset_s) / job.period_s)
        for turn in range(first, last + 1):
            at = turn * job.period_s + job.offset_s
            if int(at // DAY_S % 7) not in job.weekdays:
                continue
            size = random.poisson(job.size * factor)
            # A job's requests come thick first, then trickle; schedulers start seconds late.
            late = random.exponential(3.0)
            spread = np.minimum(random.exponential(job.spread_s / 3, size), job.spread_s)
            found.append(at - monday_s + late + spread)
    due = np.concatenate(found)
    return np.asarray(due[(due >= 0) & (due < duration_s)])


def _tokens(preset: Preset, size: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    tokens = preset.tokens
    inputs = random.lognormal(math.log(tokens.input_median), tokens.input_sigma, size)
    tail = random.random(size) < tokens.tail_share
    inputs[tail] = tokens.input_median * (1 + random.pareto(tokens.tail_alpha, int(tail.sum()))) * 3
    outputs = random.exponential(tokens.output_mean, size)
    long = random.random(size) < tokens.long_share
    outputs[long] = random.exponential(tokens.long_mean, int(long.sum()))
    return (
        np.clip(np.rint(inputs), 1, tokens.input_max).astype(np.int64),
        np.clip(np.rint(outputs), 1, tokens.output_max).astype(np.int64),
    )
