"""Counts, durations, shares and sizes as a reader wants to see them."""

import math

from inception_tf.counts import count_of

_MINUTE_SECS = 60
_HOUR_SECS = 60 * _MINUTE_SECS
_DAY_SECS = 24 * _HOUR_SECS


def count(number: int) -> str:
    """A whole number with thousands separators: '1,281,167'."""
    return f"{int(number):,}"


def rounded(number: float, *, decimals: int = 1) -> str:
    """A number with at most `decimals` places: '20.6', but '160' and not '160.0'."""
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float, *, decimals: int = 0) -> str:
    """A ratio in [0, 1] as '83%', or '98.61%' with two decimals."""
    return f"{100 * share:.{decimals}f}%"


def loss_text(loss_nats: float) -> str:
    """Four digits that keep their place from line to line: '6.912', '6.900', '0.09871'."""
    if not math.isfinite(loss_nats) or abs(loss_nats) >= 1000:
        return f"{loss_nats:,.0f}"
    return f"{loss_nats:#.4g}"


def rate_text(images_per_sec: float) -> str:
    """Images a second: '1,024', '512', '6.35'."""
    if not math.isfinite(images_per_sec) or images_per_sec >= 99.95:
        return f"{images_per_sec:,.0f}"
    return f"{images_per_sec:.3g}"


def step_secs_text(secs_per_step: float) -> str:
    """The time of one step: '3.2 s', '15 s', '85 ms'."""
    if secs_per_step < 0.9995:
        return f"{1000 * secs_per_step:.3g} ms"
    if secs_per_step < 99.95:
        return f"{secs_per_step:.2g} s" if secs_per_step < 9.95 else f"{secs_per_step:.0f} s"
    return f"{secs_per_step:,.0f} s"


def duration(secs: float) -> str:
    """The two largest units, cut and not rounded: '11 days 20 h', '3 h 12 min', '45 s'."""
    if not math.isfinite(secs):
        return "an unknown time"
    whole = int(secs)
    if whole < 1:
        return "under 1 s"
    units = ((_DAY_SECS, "day"), (_HOUR_SECS, "h"), (_MINUTE_SECS, "min"), (1, "s"))
    largest = next(place for place, (size, _) in enumerate(units) if whole >= size)
    parts = []
    for size, name in units[largest : largest + 2]:
        number, whole = divmod(whole, size)
        if number:
            parts.append(count_of(number, name) if name == "day" else f"{number} {name}")
    return " ".join(parts)


def clock(secs: float) -> str:
    """Time left in few characters: '2d 03:11' (hours, minutes), '3:11:05', '11:05'."""
    if not math.isfinite(secs):
        return "?"
    whole = max(int(secs), 0)
    days, whole = divmod(whole, _DAY_SECS)
    hours, whole = divmod(whole, _HOUR_SECS)
    minutes, seconds = divmod(whole, _MINUTE_SECS)
    if days:
        return f"{days}d {hours:02}:{minutes:02}"
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes:02}:{seconds:02}"


def byte_size(num_bytes: float) -> str:
    """Bytes in binary units, as devices are sold and as they fill up: '5.3 GiB', '512 MiB'."""
    size = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
