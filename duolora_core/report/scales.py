"""Where a value lies on an axis, and which values deserve a tick. Pure numbers, no drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LOG_FROM_RATIO = 30  # a linear axis would squeeze the smallest values into a thirtieth of its height
_MOST_DECADES = 5


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to [0, 1], linearly or by logarithm."""

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float:
        """The place of `value` on the axis; values beyond the ends stay at the ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round values inside the axis."""
        return _log_ticks(self.low, self.high, count) if self.log else _linear_ticks(self.low, self.high, count)


def value_axis(values: Sequence[float]) -> Axis:
    """An axis that holds all finite `values`: from zero, or logarithmic where they span more than a factor of 30.

    Zeros do not force a linear axis: on a logarithmic one they lie on its lower end, at most five decades down.
    """
    finite = [value for value in values if math.isfinite(value)]
    positive = [value for value in finite if value > 0]
    if not finite or max(finite) == min(finite) == 0:
        return Axis(0, 1)
    low, high = min(finite), max(finite)
    if low >= 0 and high > _LOG_FROM_RATIO * min(positive):
        return Axis(max(min(positive), high / 10**_MOST_DECADES) * 0.8, high * 1.25, log=True)
    room = 0.05 * (high - min(low, 0))
    return Axis(low - room if low < 0 else 0, max(high, 0) + room)


def tick_label(value: float) -> str:
    """A short number: 0.05, 200, 1e-5."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.4g}"


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred moving average over up to `window` values; at the ends over those that exist."""
    half = window // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(near) / len(near) for near in windows]


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**e for e in range(bottom, top + 1) for m in steps if low <= m * 10.0**e <= high]
        if len(ticks) <= count + 1:
            return ticks
    return ticks[:: math.ceil(len(ticks) / (count + 1))]
