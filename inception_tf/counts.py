"""Counts of things as a reader wants to see them, for the messages of every floor."""


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A whole number and its noun: '1 step', '1,200 steps'; a plural without a bare s is given."""
    return f"{int(number):,} {noun if number == 1 else plural or f'{noun}s'}"
