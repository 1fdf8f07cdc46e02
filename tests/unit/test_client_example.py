"""The example of docs/check-api.md, run as it stands there."""

import asyncio
import re
from pathlib import Path

import pytest
from check_parts import Checks
from pipeline_rig import GERMAN, US, deny, permit

from sidecar.client import DecisionClient, DeniedError

pytestmark = pytest.mark.unit
PAGE = Path(__file__).resolve().parents[2] / "docs" / "check-api.md"


def example():
    text = re.search(
        r"<!-- example: begin -->\n```python\n(.*?)```\n<!-- example: end -->", PAGE.read_text(), re.DOTALL
    )[1]
    names = {}
    exec(compile(text, str(PAGE), "exec"), names)
    return names["profiles"]


async def shown(checks, folder, ids):
    profiles = example()
    async with checks.served(folder) as address:

        def run():
            with DecisionClient(address, deadline=10.0, clock=lambda: checks.rig.now) as client:
                return profiles(client, "t.o.k", [str(one) for one in ids])

        return await asyncio.to_thread(run)


async def test_the_example_shows_what_may_be_shown_and_reports_it(tmp_path):
    checks = Checks()
    checks.rig.engine.rule = lambda _request: permit(
        {"id": "drop_records", "subjects": "us"}, {"id": "redact_fields", "categories": ["id_contact"], "fields": []}
    )
    assert await shown(checks, tmp_path, [US, GERMAN]) == [{"id": str(GERMAN)}]
    (done,) = checks.outcomes
    assert (done.seen, done.dropped, done.redacted, done.released.unknown.records) == (
        "reported",
        1,
        {"id_contact": 1},
        1,
    )
    assert {one.id: one.met for one in done.obligations} == {"drop_records": True, "redact_fields": True}


async def test_the_example_shows_nothing_when_it_is_denied(tmp_path):
    checks = Checks()
    checks.rig.engine.rule = lambda _request: deny("purpose_not_allowed")
    with pytest.raises(DeniedError, match="purpose_not_allowed"):
        await shown(checks, tmp_path, [US])
