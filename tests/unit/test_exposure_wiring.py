"""From the settings to the ledger: what a sidecar makes of `ledger`, and the whole way over gRPC."""

import asyncio
from types import SimpleNamespace

import pytest
from exposure_rig import Counted, limit
from ledger_rig import SIDECAR, Certificates, Local, Served
from pipeline_rig import answer, get, profile

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.errors import Code, ConfigurationError, DecideError
from sidecar.ledger import inspection
from sidecar.ledger.items import Settlement
from sidecar.main import ledger as wiring
from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.loader import load
from sidecar.settings.sidecar import Ledger


class Log:
    def __init__(self):
        self.events = []

    def error(self, event, **details):
        self.events.append(event)

    warning = error


def settings(files=None, port=9):
    """As much of the sidecar's settings as the ledger's part reads."""
    if files is None:
        return SimpleNamespace(ledger=None)
    tls = {"ca": str(files.ca)} | ({"cert": str(files.cert), "key": str(files.key)} if files.cert else {})
    tree = {"address": f"localhost:{port}", "tls": tls, "deadline": "5s"}
    return SimpleNamespace(ledger=Ledger.model_validate(tree))


@pytest.fixture
async def served(tmp_path):
    local = Local(tmp_path / "ledger.sqlite")
    found = await Served(local, Certificates(tmp_path)).start()
    yield found
    await found.stop()
    local.close()


async def test_without_a_ledger_in_the_settings_there_is_none():
    assert wiring.opened(settings(), Log(), lambda _error: None) is None
    assert wiring.check(settings()) == []


def test_the_certificates_are_tried_before_serving(tmp_path):
    files = Certificates(tmp_path).client()
    assert wiring.check(settings(files)) == ["ledger         localhost:9"]
    files.cert.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="ledger.tls"):
        wiring.check(settings(files))
    bare = SimpleNamespace(ca=files.ca, cert=None, key=None)
    with pytest.raises(ConfigurationError, match="ledger.tls.cert"):
        wiring.check(settings(bare))


async def test_calls_at_the_same_time_cannot_cross_a_threshold_together_over_the_wire(served):
    files = served.certificates.client(SIDECAR)
    link = wiring.opened(settings(files, served.port), Log(), lambda _error: None)
    rig = Counted()
    rig.exposures.ledger = link.client
    rig.engine.rule = limit("id_contact", 5)
    rig.upstream.reply = lambda message: answer(profile(pb.GetProfileRequest.FromString(message).user_id))
    replies = await asyncio.gather(*(rig.unary(get(number)) for number in range(10, 30)))
    assert sum(one.final.code is Code.OK for one in replies) <= 5
    assert (await served.peek("acme")).get("id_contact", 0) <= 5
    assert inspection.status(served.local.path)["reservations"] == 0
    assert inspection.verify(served.local.path, lambda _done, _of: None) == []
    await link.close()


async def test_an_operator_sees_what_the_ledger_was_not_told(tmp_path):
    told: list[DecideError] = []
    link = wiring.opened(settings(Certificates(tmp_path).client()), Log(), told.append)
    await link.exposures.settle(Settlement("c1"))
    assert "ledger" in told[0].operator
    assert link.problems() == ["ledger: 1 settlements cannot be told; covered persons are refused"]
    assert {name: read() for name, (_, read) in link.gauges().items()} == {
        "ledger_owed": 1.0,
        "ledger_lost": 0.0,
        "ledger_requests": {("answered",): 0.0, ("failed",): 1.0},
    }
    assert len([one.close() for one in link.work()]) == 2
    await link.close()


async def test_no_more_is_owed_than_can_be_kept(monkeypatch):
    rig = Counted()
    monkeypatch.setattr("sidecar.enforcement.exposure.MOST_OWED", 2)
    for number in range(5):
        rig.exposures.owe(Settlement(f"c{number}"))
    assert (rig.exposures.owed, rig.exposures.lost) == (2, 3)


async def test_what_is_owed_is_told_in_the_background(monkeypatch):
    monkeypatch.setattr("sidecar.enforcement.exposure.OWED_SECONDS", 0.01)
    rig = Counted()
    rig.exposures.owe(Settlement("c1"))
    running = asyncio.create_task(rig.exposures.run())
    while rig.exposures.owed:
        await asyncio.sleep(0.01)
    running.cancel()
    assert rig.ledger.settled == {"c1"}


YAML = """
listen: {address: 0.0.0.0:9446, tls: {cert: l.pem, key: l.key, client_ca: ca.pem}}
sidecars: [spiffe://corp/ns/sidecar]
database: ledger.sqlite
secret: ledger.secret
hold: 12h
metrics: {listen: 127.0.0.1:9465}
"""


def test_the_ledger_s_settings_as_an_operator_would_write_them(tmp_path):
    (tmp_path / "ledger.yaml").write_text(YAML)
    found = load(tmp_path / "ledger.yaml", LedgerSettings, {})
    assert (found.hold, found.database) == (43_200.0, tmp_path / "ledger.sqlite")


@pytest.mark.parametrize(("old", "new", "said"), [
    (", client_ca: ca.pem", "", "client_ca is missing"), ("[spiffe://corp/ns/sidecar]", "[]", "sidecars"),
    ("hold: 12h", "hold: 1s", "hold"), ("secret: ledger.secret\n", "", "secret: missing"), ("hold:", "holds:", "did you mean 'hold'"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused_by_name(tmp_path, old, new, said):
    (tmp_path / "ledger.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path / "ledger.yaml", LedgerSettings, {})
