"""Which days count: the preceding 12 months of 28 CFR 202.205, in whole days of UTC.

The window of a day begins with the same day of last year (29 February: with the 28th) and ends with the day itself, so
what was seen on 10 March counts until the end of the next 10 March: a day more than a year rather than a part of one less.
Days are numbered from 1 January 2020 and fit two bytes until 2199.
"""

from datetime import UTC, date, datetime, timedelta

_EPOCH = date(2020, 1, 1)
LAST_DAY = 0xFFFF


def day_of(seconds: float) -> int:
    """The day of an instant (unix seconds). ValueError outside 2020 to 2199."""
    number = (datetime.fromtimestamp(seconds, UTC).date() - _EPOCH).days
    if not 0 <= number <= LAST_DAY:
        raise ValueError("the clock is not between 2020 and 2199")
    return number


def first_day(today: int) -> int:
    """The first day of the window that ends with `today`."""
    now = date_of(today)
    try:
        before = now.replace(year=now.year - 1)
    except ValueError:
        before = date(now.year - 1, 2, 28)
    return (before - _EPOCH).days


def date_of(day: int) -> date:
    """The date of a day."""
    return _EPOCH + timedelta(days=day)
