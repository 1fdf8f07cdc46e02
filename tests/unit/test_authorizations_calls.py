"""Authorizations and exceptions in a running sidecar: what calls are shown, what is recorded, and when open calls hear."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml
from grant_signing import ALL_SIGNERS, KEYS, attested, authorized, listed, public
from pipeline_rig import NOW, SERVICE, US, Rig, get, permit
from settings_files import SIDECAR

from sidecar.errors import Code, ConfigurationError
from sidecar.exceptions.authorization_store import Lifted
from sidecar.exceptions.grant import Revocation, sign_grant, sign_revocation
from sidecar.main import authorizations, check, grants
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings
from sidecar.vocabulary import Authorization, SecurityRequirements

pytestmark = pytest.mark.unit
LIFTED = Lifted(
    (Authorization(id="au-1", kind="exemption", paragraph="202.505", persons=("amy",), services=(SERVICE,),
                   categories=("id_contact",), purposes=("user_support",), owner="olga", expires="2030-01-01T00:00:00Z"),),
    SecurityRequirements(version="2025-01"), NOW + 90,
)  # fmt: skip


@pytest.fixture
def rig():
    return Rig()


async def test_a_call_is_shown_what_is_in_force_and_its_decision_lasts_no_longer(rig):
    rig.authorizations.lifted = LIFTED
    rig.engine.rule = lambda _request: permit(ttl=300)
    reply = await rig.unary(get(US))
    assert reply.final.code is Code.OK
    context = rig.engine.documents[0].context
    assert (context.authorizations, context.security_requirements) == (LIFTED.authorizations, LIFTED.requirements)
    assert rig.engine.valid_for[0] == 90
    assert rig.authorizations.asked[0] == ([("amy", None), ("spiffe://t/console", None)], SERVICE)
    rig.now += 90
    await rig.unary(get(US))
    context = rig.engine.documents[-1].context
    assert (context.authorizations, context.security_requirements) == ((), SecurityRequirements())


def settings(folder: Path) -> SidecarSettings:
    tree = yaml.safe_load(SIDECAR)
    tree["identity"]["authorizations"] = {"file": "authorizations.jsonl", "keys": "signers.yaml"}
    (folder / "grants").mkdir()
    (folder / "approvers.yaml").write_bytes(listed(*({"id": name, "key": public(name)} for name in KEYS)))
    (folder / "signers.yaml").write_bytes(ALL_SIGNERS)
    (folder / "authorizations.jsonl").write_bytes(b"")
    (folder / "sidecar.yaml").write_text(yaml.safe_dump(tree))
    return load(folder / "sidecar.yaml", SidecarSettings, {})


class Log:
    def warning(self, event, **details) -> None:
        pass

    error = warning


async def until(reached) -> None:
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def at_work(work):
    task = asyncio.ensure_future(work)
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Records:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []
        self.changes = 0

    async def say(self, kind, details) -> None:
        self.said.append((kind, dict(details)))

    def changed(self) -> None:
        self.changes += 1


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


async def test_coming_into_force_and_ending_are_recorded_and_open_calls_hear(tmp_path):
    used, records = settings(tmp_path), Records()
    store = authorizations.recorded(used, Log(), records.say, records.changed)
    window = {"not_before": stamp(-60), "expires": stamp(3600)}
    async with at_work(store.run()):
        new = tmp_path / "authorizations.new"
        new.write_bytes(authorized(**window) + b"\n")
        new.rename(tmp_path / "authorizations.jsonl")
        await until(lambda: len(records.said) == 1)
        new.write_bytes(attested(attested_at=stamp(-60), valid_until=stamp(3600)))
        new.rename(tmp_path / "attestations.jsonl")
        await until(lambda: len(records.said) == 2)
        (tmp_path / "authorizations.jsonl").write_bytes(b"\n")
        await until(lambda: len(records.said) == 3)
    assert [(kind, said["id"], said["state"], said["why"]) for kind, said in records.said] == [
        ("authorization", "au-1", "in_force", ""), ("attestation", "at-1", "in_force", ""),
        ("authorization", "au-1", "ended", "withdrawn"),
    ]  # fmt: skip
    assert records.changes == 3
    assert authorizations.recorded(used.model_copy(update={"identity": used.identity.model_copy(
        update={"authorizations": None})}), Log(), records.say, records.changed) is None  # fmt: skip


async def test_a_revoked_exception_is_closed_as_revoked_and_open_calls_hear(tmp_path):
    used, records = settings(tmp_path), Records()
    store = grants.recorded(used, Log(), records.say, records.changed)
    body = {"id": "EX-1", "person": "ed", "scope": {"services": [SERVICE], "categories": ["id_contact"], "subjects": "us"},
            "justification": "outage", "ticket": "INC-7", "not_before": stamp(-60), "expires": stamp(3600),
            "requested_by": "rae", "max_records": None}  # fmt: skip
    async with at_work(store.run()):
        signed = sign_grant(body, KEYS["eli"], "eli", sign_grant(body, KEYS["dana"], "dana"))
        (tmp_path / "grants" / ".EX-1").write_bytes(signed)
        (tmp_path / "grants" / ".EX-1").rename(tmp_path / "grants" / "EX-1.json")
        await until(lambda: len(records.said) == 1)
        revoked = sign_revocation(Revocation(grant="EX-1", reason="over", revoked_at=stamp(0)), KEYS["fay"], "fay")
        (tmp_path / "grants" / ".EX-1").write_bytes(revoked)
        (tmp_path / "grants" / ".EX-1").rename(tmp_path / "grants" / "EX-1.revoked")
        await until(lambda: len(records.said) == 2)
    assert [(kind, said["id"], said["why"]) for kind, said in records.said] == [
        ("exception_opened", "EX-1", ""), ("exception_closed", "EX-1", "revoked")]  # fmt: skip
    assert records.changes == 2
    assert store.status().in_force == ()


def test_check_config_counts_them_and_names_what_is_damaged(tmp_path):
    used = settings(tmp_path)
    (tmp_path / "authorizations.jsonl").write_bytes(authorized(not_before=stamp(-60), expires=stamp(60)))
    assert list(check._authorizations(used)) == ["authorizations 1 in force"]
    (tmp_path / "attestations.jsonl").write_bytes(b"{}")
    with pytest.raises(
        ConfigurationError, match=r"identity.authorizations.file: .*attestations.jsonl:1: cannot be used"
    ):
        list(check._authorizations(used))
    (tmp_path / "signers.yaml").unlink()
    with pytest.raises(
        ConfigurationError, match="identity.authorizations.keys: .*signers.yaml: cannot be used: No such"
    ):
        list(check._authorizations(used))
