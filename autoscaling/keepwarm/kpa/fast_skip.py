"""Stretches of the fast engine in which nothing can change any more, jumped over exactly."""

from keepwarm.kpa.fast_decider import NOT_PANICKING
from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.fast_memory import Memory
from keepwarm.kpa.model import MICROSECONDS
from keepwarm.kpa.reference import TICK_US
from keepwarm.kpa.windows import DELAY_SLOT_S

ZERO_SUM = 4e-7  # what is below this is 0 after rounding to 6 digits, whatever it is divided by


@jit
def settled(m: Memory, now_us: int) -> bool:
    """Whether scrapes and ticks alone can change nothing any more, asked after a tick.

    No report will come but zeros, and the tick's answer is the one to every following tick: the
    windows hold nothing that shows, panic is over, the delay window holds this answer only.
    """
    loop, s = m.loop, m.scaler
    state = s.state
    if not loop.created or loop.entry or loop.direct or s.stable.filled or s.panic.filled:
        return False
    if not state.valid:  # no data: a tick does nothing until there is some
        return bool(loop.ready == 0 and s.spec.scraped)
    same = (
        state.stable == 0.0
        and state.panic == 0.0
        and state.panic_since_us == NOT_PANICKING
        and abs(s.stable.total) < ZERO_SUM
        and abs(s.panic.total) < ZERO_SUM
        and state.wanted == state.answer
        and s.delay.count <= 1
        and state.ready == loop.ready
    )
    if not same or loop.ready == 0 or not s.spec.scraped:
        return bool(same)
    # Idle pods write a zero every second: the latest must be in, or the next one starts anew.
    latest = (now_us - (now_us - loop.scrape_us) % MICROSECONDS) // MICROSECONDS
    return bool(s.stable.last_write == latest and s.panic.last_write == latest)


@jit
def jump(m: Memory, for_us: int) -> None:
    """Over scrapes and ticks that change nothing, from the next beat on: what they leave behind."""
    loop, s = m.loop, m.scaler
    loop.ticks += for_us // TICK_US
    loop.base_us += for_us
    loop.beat_us += for_us
    last_us = loop.beat_us - 1
    if loop.ready and s.spec.scraped:
        second = (last_us - (last_us - loop.scrape_us) % MICROSECONDS) // MICROSECONDS
        s.stable.last_write = second
        s.stable.silent_s = 0
        s.panic.last_write = second
        s.panic.silent_s = 0
    if s.delay.count and s.state.valid:
        tick_us = last_us - (last_us - loop.create_us) % TICK_US
        s.delay_slots[s.delay.head] = tick_us // MICROSECONDS // DELAY_SLOT_S
