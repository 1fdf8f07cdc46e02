"""What every ledger promises: the simulator, the rules over a database, and the service over gRPC."""

import asyncio
import datetime as dt

import pytest
from ledger_rig import Certificates, Local, Served
from ledger_simulator import DAY, NOON, Simulator

from sidecar.ledger.items import Item, LedgerError, RefusedError, Seen, Settlement

pytestmark = pytest.mark.contract
HEALTH = Seen(frozenset({"personal_health"}))
CONTACT = Seen(frozenset({"id_contact"}), (("d", 1),))
DEVICE_ID = Seen(frozenset({"id_device"}), (("c", 1),))
PLACE = Seen(frozenset({"precise_geolocation"}))
SERVICE = "shop.v1.Orders"


@pytest.fixture(params=["simulator", "rules", "grpc"])
async def ledger(request, tmp_path):
    if request.param == "simulator":
        yield Simulator()
        return
    local = Local(tmp_path / "ledger.sqlite")
    if request.param == "rules":
        yield local
    else:
        served = await Served(local, Certificates(tmp_path)).start()
        yield served
        await served.stop()
    local.close()
    assert not local.broken


def person(number, seen=HEALTH, devices=()):
    return Item("person", str(number), seen, devices)


async def released(ledger, call, *items, group="acme", source=SERVICE, at=None):
    """A whole call that releases all it reserved."""
    found = await ledger.reserve(call, 1, group, source, items)
    await ledger.settle(Settlement(call, groups=(group,), source=source, items=items, released_at=at or ledger.now))
    return found


async def test_a_group_nobody_has_heard_of_has_seen_nothing(ledger):
    assert await ledger.peek("acme") == {}


async def test_a_reservation_counts_itself_and_every_other_that_is_outstanding(ledger):
    assert await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)]) == {"personal_health": 1}
    assert await ledger.reserve("c2", 1, "acme", SERVICE, [person(2)]) == {"personal_health": 2}
    assert await ledger.peek("acme") == {"personal_health": 2}


async def test_a_person_counts_once_whatever_the_calls_and_services(ledger):
    await released(ledger, "c1", person(1))
    await released(ledger, "c2", person(1), source="other.v1.Api")
    assert await ledger.reserve("c3", 1, "acme", SERVICE, [person(1), person(1)]) == {"personal_health": 1}


async def test_kinds_are_apart(ledger):
    await released(ledger, "c1", person(1), Item("account", "1", HEALTH))
    assert await ledger.peek("acme") == {"personal_health": 2}


async def test_groups_are_apart(ledger):
    await released(ledger, "c1", person(1))
    assert await ledger.peek("other") == {}


async def test_what_was_not_released_is_given_back(ledger):
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1), person(2)])
    await ledger.settle(Settlement("c1", groups=("acme",), source=SERVICE, items=[person(2)]))
    assert await ledger.peek("acme") == {"personal_health": 1}
    await ledger.reserve("c2", 1, "acme", SERVICE, [person(3)])
    await ledger.settle(Settlement("c2"))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_giving_back_leaves_what_others_have_reserved_or_released_of_the_same_person(ledger):
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)])
    await ledger.reserve("c2", 1, "acme", SERVICE, [person(1, CONTACT)])
    await ledger.settle(Settlement("c1"))
    assert await ledger.peek("acme") == {"id_contact": 1}
    await released(ledger, "c3", person(1))
    await ledger.settle(Settlement("c2"))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_less_may_leave_than_was_reserved_of_a_person(ledger):
    both = HEALTH | CONTACT
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1, both)])
    everything = {"personal_health": 1, "id_contact": 1, "covered_personal_identifiers": 1, "combined": 1}
    assert await ledger.peek("acme") == everything
    await ledger.settle(Settlement("c1", groups=("acme",), source=SERVICE, items=[person(1, CONTACT)]))
    assert await ledger.peek("acme") == {"id_contact": 1}


async def test_everything_that_is_reserved_can_be_settled_as_released(ledger):
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)])
    await ledger.settle(Settlement("c1", everything=True))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_some_reservations_of_a_call_are_settled_and_the_call_goes_on(ledger):
    for number in (1, 2, 3):
        await ledger.reserve("c1", number, "acme", SERVICE, [person(number)])
    await ledger.settle(Settlement("c1", sequences=(1, 2), groups=("acme",), source=SERVICE, items=[person(2)]))
    assert await ledger.peek("acme") == {"personal_health": 2}
    await ledger.reserve("c1", 4, "acme", SERVICE, [person(4)])
    await ledger.settle(Settlement("c1"))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_a_reservation_made_twice_counts_once(ledger):
    for _ in range(2):
        assert await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)]) == {"personal_health": 1}
    await ledger.settle(Settlement("c1"))
    assert await ledger.peek("acme") == {}


@pytest.mark.parametrize("changed", [("other", SERVICE, person(1)), ("acme", SERVICE, person(2)),
                                     ("acme", SERVICE, person(1, CONTACT))])  # fmt: skip
async def test_a_reservation_made_again_with_other_content_is_refused(ledger, changed):
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)])
    group, source, item = changed
    with pytest.raises(LedgerError):
        await ledger.reserve("c1", 1, group, source, [item])
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_a_reservation_that_comes_after_its_call_was_settled_is_refused(ledger):
    await ledger.settle(Settlement("c1"))
    with pytest.raises(LedgerError):
        await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)])
    assert await ledger.peek("acme") == {}


async def test_a_settlement_made_twice_changes_nothing(ledger):
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1), person(2)])
    for _ in range(2):
        await ledger.settle(Settlement("c1", groups=("acme",), source=SERVICE, items=[person(1)]))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_what_was_released_without_a_reservation_counts_all_the_same(ledger):
    await ledger.settle(Settlement("c1", groups=("acme", "other"), source=SERVICE, items=[person(1)]))
    assert await ledger.peek("acme") == {"personal_health": 1}
    assert await ledger.peek("other") == {"personal_health": 1}


async def test_identifiers_of_two_transactions_and_two_services_are_linked(ledger):
    """28 CFR 202.212(a)(1), 232(b)(2)."""
    await released(ledger, "c1", person(1, DEVICE_ID))
    assert await ledger.peek("acme") == {"id_device": 1}
    await released(ledger, "c2", person(1, CONTACT), source="other.v1.Api")
    assert await ledger.peek("acme") == {"id_device": 1, "id_contact": 1, "covered_personal_identifiers": 1}


async def test_contact_data_linked_only_to_contact_data_is_not_covered(ledger):
    """28 CFR 202.212(b)(1)."""
    await released(ledger, "c1", person(1, Seen(frozenset({"id_contact"}), (("d", 3),))))
    assert await ledger.peek("acme") == {"id_contact": 1}


async def test_two_sensitive_types_of_two_services_are_combined(ledger):
    """28 CFR 202.205(g)."""
    await released(ledger, "c1", person(1))
    await released(ledger, "c2", person(1, Seen(frozenset({"personal_financial"}))), source="other.v1.Api")
    assert await ledger.peek("acme") == {"personal_health": 1, "personal_financial": 1, "combined": 1}


async def test_one_identifier_seen_again_at_the_same_service_is_one(ledger):
    await released(ledger, "c1", person(1, DEVICE_ID))
    await released(ledger, "c2", person(1, DEVICE_ID))
    assert await ledger.peek("acme") == {"id_device": 1}


async def test_two_identifiers_of_one_letter_make_a_covered_person(ledger):
    await released(ledger, "c1", person(1, Seen(frozenset({"id_device"}), (("c", 2),))))
    assert await ledger.peek("acme") == {"id_device": 1, "covered_personal_identifiers": 1}


async def test_a_location_counts_devices_where_they_are_named_and_people_where_not(ledger):
    """28 CFR 202.205(c)."""
    await released(ledger, "c1", person(1, PLACE, ("d1", "d2")), person(2, PLACE, ("d2",)), person(3, PLACE))
    assert await ledger.peek("acme") == {"precise_geolocation": 3}
    await released(ledger, "c2", person(2, HEALTH))
    assert await ledger.peek("acme") == {"precise_geolocation": 3, "personal_health": 1, "combined": 1}


async def test_a_sighting_counts_to_the_same_day_of_next_year_and_no_longer(ledger):
    await released(ledger, "c1", person(1))
    ledger.now = dt.datetime(2027, 11, 22, 23, 59, tzinfo=dt.UTC).timestamp()
    assert await ledger.peek("acme") == {"personal_health": 1}
    ledger.now += 120
    assert await ledger.peek("acme") == {}


async def test_an_earlier_sighting_expires_while_a_later_one_stays(ledger):
    await released(ledger, "c1", person(1), person(2))
    ledger.now = NOON + 200 * DAY
    await released(ledger, "c2", person(1, CONTACT), person(2))
    assert await ledger.peek("acme") == {
        "personal_health": 2, "id_contact": 1, "covered_personal_identifiers": 1, "combined": 1
    }  # fmt: skip
    ledger.now = NOON + 367 * DAY
    assert await ledger.peek("acme") == {"personal_health": 1, "id_contact": 1}
    await released(ledger, "c3", person(1))
    assert await ledger.peek("acme") == {
        "personal_health": 2, "id_contact": 1, "covered_personal_identifiers": 1, "combined": 1
    }  # fmt: skip
    ledger.now = NOON + 567 * DAY
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_on_its_last_day_a_sighting_still_links_and_is_not_counted_again(ledger):
    await released(ledger, "c1", person(1))
    ledger.now = dt.datetime(2027, 11, 22, 12, tzinfo=dt.UTC).timestamp()
    await ledger.reserve("c2", 1, "acme", SERVICE, [person(1, CONTACT)])
    assert (await ledger.peek("acme"))["combined"] == 1
    await ledger.settle(Settlement("c2"))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_an_older_release_that_is_told_later_takes_nothing_from_a_newer_one(ledger):
    await released(ledger, "c1", person(1))
    await released(ledger, "c2", person(1), at=ledger.now - 0.9 * DAY)
    ledger.now = dt.datetime(2027, 11, 22, 12, tzinfo=dt.UTC).timestamp()
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_29_february(ledger):
    ledger.now = dt.datetime(2028, 2, 28, 12, tzinfo=dt.UTC).timestamp()
    await released(ledger, "c1", person(1))
    ledger.now += DAY
    await released(ledger, "c2", person(2))
    for day, counted in (((2029, 2, 28), 2), ((2029, 3, 1), 0)):
        ledger.now = dt.datetime(*day, 1, tzinfo=dt.UTC).timestamp()
        assert (await ledger.peek("acme")).get("personal_health", 0) == counted, day


async def test_the_day_of_a_release_is_the_one_the_sidecar_says_within_a_day_and_never_the_future(ledger):
    await released(ledger, "c1", person(1), at=ledger.now - 40 * DAY)
    await released(ledger, "c2", person(2), at=ledger.now + 40 * DAY)
    ledger.now = NOON + 365 * DAY
    assert await ledger.peek("acme") == {"personal_health": 1}
    ledger.now += DAY
    assert await ledger.peek("acme") == {}


async def test_what_nobody_settles_counts_until_it_lapses_and_then_as_released(ledger):
    await ledger.reserve("c1", 1, "acme", SERVICE, [person(1)])
    ledger.now += DAY - 60
    await asyncio.sleep(0) if isinstance(ledger, Simulator) else await ledger.lapse()
    await ledger.settle(Settlement("c1"))
    assert await ledger.peek("acme") == {}
    await ledger.reserve("c2", 1, "acme", SERVICE, [person(1)])
    ledger.now += DAY + 60
    ledger.lapse() if isinstance(ledger, Simulator) else await ledger.lapse()
    assert await ledger.peek("acme") == {"personal_health": 1}
    await ledger.settle(Settlement("c2"))
    assert await ledger.peek("acme") == {"personal_health": 1}


async def test_calls_at_the_same_time_cannot_cross_a_threshold_together(ledger):
    """Each is told a figure that holds all those before it: with room for 100, 100 of 150 are told that it suffices."""
    found = await asyncio.gather(
        *(ledger.reserve(f"c{number}", 1, "acme", SERVICE, [person(number)]) for number in range(150))
    )
    assert sorted(one["personal_health"] for one in found) == list(range(1, 151))


async def test_a_category_that_nobody_knows_is_refused(ledger):
    if isinstance(ledger, Simulator):
        pytest.skip("the simulator takes any word")
    with pytest.raises(LedgerError):
        await ledger.reserve("c1", 1, "acme", SERVICE, [person(1, Seen(frozenset({"shoe_size"})))])
    assert await ledger.peek("acme") == {}


def test_errors_of_the_rules_are_errors_of_the_ledger():
    assert issubclass(RefusedError, LedgerError)
