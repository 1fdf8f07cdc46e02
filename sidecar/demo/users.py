"""The demo's data: generated users of mixed residence, in SQLite. The same seed gives the same users."""

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USERS = 20_000
SEED = 202
_COUNTRIES = ("US",) * 9 + ("PR", "DE", "FR", "IE", "JP", "BR", "SG", "GB", "IN", "MX", "ZZ")
"""`ZZ`: the platform does not know where the user lives, so the index does not list them."""
_CITIES = {"US": "Columbus", "PR": "Ponce", "DE": "Kassel", "FR": "Lyon", "IE": "Cork", "JP": "Sendai", "BR": "Natal",
           "SG": "Singapore", "GB": "Leeds", "IN": "Pune", "MX": "Puebla", "ZZ": ""}  # fmt: skip
_FIRST = ("Ada", "Ben", "Chloe", "Dev", "Elif", "Femi", "Gus", "Hana", "Ivan", "Jo", "Kai", "Lea")
_LAST = ("Abara", "Brandt", "Costa", "Doyle", "Evans", "Fujita", "Garcia", "Huang", "Ito", "Jones", "Khan", "Lopez")
_TOPICS = ("cooking", "football", "sewing", "chess", "gardens", "synths", "trains", "running")
_SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, country TEXT, handle TEXT, name TEXT, email TEXT, phone TEXT, login TEXT,
  government_id TEXT, city TEXT, address TEXT, watched TEXT, card TEXT, amount TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY, sender INTEGER, recipient INTEGER, text TEXT, sent_at TEXT);
CREATE INDEX by_sender ON messages (sender);
CREATE INDEX by_recipient ON messages (recipient);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Users that the scenes name: the first of each kind."""

    us: int
    us_too: int
    german: int
    french: int
    unlisted: int


def make(database: Path, index: Path) -> Cast:
    """Write the database, and the CSV from which the subject index is built."""
    rows = list(_rows())
    with sqlite3.connect(database) as connection:
        connection.executescript(_SCHEMA)
        connection.executemany(f"INSERT INTO users VALUES ({','.join('?' * 13)})", rows)  # noqa: S608 - placeholders
        connection.executemany(
            "INSERT INTO messages (sender, recipient, text, sent_at) VALUES (?, ?, ?, ?)", _messages(rows)
        )
    connection.close()
    with index.open("w", encoding="utf-8") as out:
        out.write("id,country,as_of\n")
        out.writelines(f"{row[0]},{row[1]},2026-11-01T00:00:00Z\n" for row in rows if row[1] != "ZZ")
    first: dict[str, list[int]] = {}
    for row in rows:
        first.setdefault(str(row[1]), []).append(int(str(row[0])))
    return Cast(
        us=first["US"][0], us_too=first["US"][1], german=first["DE"][0], french=first["FR"][0], unlisted=first["ZZ"][0]
    )


def _rows() -> Iterator[tuple[object, ...]]:
    dice = random.Random(SEED)  # noqa: S311 - made-up people, not keys
    for number in range(1, USERS + 1):
        country = dice.choice(_COUNTRIES)
        first, last = dice.choice(_FIRST), dice.choice(_LAST)
        handle = f"{first}{last}{number}".lower()
        yield (
            number, country, handle, f"{first} {last}", f"{handle}@mail.example", f"+1555{dice.randrange(10**7):07d}",
            f"{handle}.login", f"{dice.randrange(900, 1000)}-{dice.randrange(100):02d}-{dice.randrange(10**4):04d}",
            _CITIES[country], f"198.51.100.{dice.randrange(256)}", ",".join(dice.sample(_TOPICS, 3)),
            f"{dice.randrange(10**4):04d}", f"{dice.randrange(100, 9999) / 100:.2f} USD",
        )  # fmt: skip


def _messages(rows: list[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    dice = random.Random(SEED + 1)  # noqa: S311
    by_country: dict[object, list[object]] = {}
    for row in rows:
        by_country.setdefault(row[1], []).append(row[0])
    for row in rows[:2000]:
        for turn in range(3):
            same = dice.random() < 0.6 or row[1] == "ZZ"
            other = dice.choice(by_country[row[1]]) if same else dice.choice(rows)[0]
            yield row[0], other, f"about {dice.choice(_TOPICS)}", f"2026-11-{turn + 1:02d}T12:00:00Z"
