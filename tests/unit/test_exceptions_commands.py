"""`sidecar exception`: from request to grant to its end, as the people at their desks would do it."""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from google.protobuf import descriptor_pb2, empty_pb2
from grant_signing import KEYS, listed, public
from settings_files import SIDECAR

from sidecar.administration import papers
from sidecar.administration.exception_desk import ExceptionDesk
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.exceptions.grant import sign_grant
from sidecar.exceptions.store import GrantStore

pytestmark = pytest.mark.unit
SERVICE = "sidecar.demo.profiles.v1.Profiles"


class Office:
    def __init__(self, folder, shell):
        self.folder, self.shell, self.grants = folder, shell, folder / "grants"
        self.grants.mkdir()
        self.config = folder / "sidecar.yaml"
        (folder / "approvers.yaml").write_bytes(listed(*({"id": name, "key": public(name)} for name in KEYS)))
        tree = yaml.safe_load(SIDECAR)
        tree["describe"]["descriptors"] = {"reflection": True}
        self.write(tree)
        for name, key in KEYS.items():
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (folder / f"{name}.pem").write_bytes(pem)

    def write(self, tree):
        self.config.write_text(yaml.safe_dump(tree))

    def request(self, *more, person="ed", by="rae"):
        return self.shell("exception", "request", "--config", self.config, "--person", person, "--service", SERVICE,
                          "--category", "id_contact", "--justification", "outage", "--ticket", "INC-7",
                          "--requested-by", by, *more)  # fmt: skip

    def asked(self, *more, **people):
        ran = self.request(*more, **people)
        assert (ran.code, ran.err) == (0, "")
        return re.match(r"exception (EX-[0-9a-f-]{36}): ", ran.out)[1]

    def approve(self, name, who, *more):
        return self.shell(
            "exception", "approve", name, "--config", self.config, "--key", self.folder / f"{who}.pem", "--yes", *more
        )

    def listed(self):
        ran = self.shell("exception", "list", "--config", self.config, "--json")
        return ran.code, {row["id"]: row for row in json.loads(ran.out)}

    def files(self):
        return sorted(path.name for path in self.grants.iterdir())

    def in_force(self):
        store = GrantStore(folder=self.grants, approvers=self.folder / "approvers.yaml", clock=time.time,
                           on_event=lambda _event: None)  # fmt: skip
        store.load()
        return store.status()


@pytest.fixture
def office(tmp_path, shell):
    return Office(tmp_path, shell)


def test_from_request_to_grant_to_revocation(office):
    name = office.asked("--max-records", 3)
    assert office.files() == [f"{name}.draft"]
    assert office.listed()[1][name]["state"] == "draft"
    first = office.approve(name, "dana")
    assert (first.code, first.err) == (0, "")
    assert "approved by dana; 1 more approver is needed" in first.out
    assert office.files() == [f"{name}.part"]
    assert office.in_force().in_force == ()
    assert (office.listed()[1][name]["state"], office.listed()[1][name]["approvers"]) == ("waiting", ["dana"])
    second = office.approve(name, "eli")
    assert "approved by    dana" in second.out
    assert "approved by eli; the grant is in its place" in second.out
    assert office.files() == [f"{name}.json"]
    assert office.in_force().in_force == (name,)
    code, rows = office.listed()
    assert (code, rows[name]["state"], rows[name]["approvers"]) == (0, "in_force", ["dana", "eli"])
    ran = office.shell("exception", "revoke", name, "--config", office.config, "--key", office.folder / "fay.pem",
                       "--reason", "over")  # fmt: skip
    assert (ran.code, ran.out) == (0, f"revoked by fay: {office.grants / name}.revoked\n")
    assert office.in_force().in_force == ()
    assert office.listed()[1][name]["state"] == "revoked"


def test_what_is_signed_is_shown_first(office):
    name = office.asked("--from", "2099-01-01T10:00:00Z", "--hours", 2, "--subjects", "unknown")
    shown = office.approve(name, "dana").out.splitlines()
    assert shown[:5] == [f"exception      {name}", "person         ed", f"services       {SERVICE} (not checked: no descriptor file is configured)",
                         "categories     id_contact", "data subjects  unknown"]  # fmt: skip
    assert re.fullmatch(r"from           \w+ \d\d \w+ 20\d\d \d\d:00:00 \S+ \(2099-01-01T10:00:00Z\)", shown[6])
    assert shown[7].endswith("(2099-01-01T12:00:00Z), 2 hours")
    assert shown[8:12] == [
        "justification  outage",
        "ticket         INC-7",
        "asked for by   rae",
        "approved by    nobody yet",
    ]


def test_the_window_is_a_day_by_default(office):
    name = office.asked()
    payload = json.loads((office.grants / f"{name}.draft").read_text())["payload"]
    begins, ends = (datetime.fromisoformat(payload[key]) for key in ("not_before", "expires"))
    assert ends - begins == timedelta(days=1)
    assert abs((datetime.now(UTC) - begins).total_seconds()) < 60


def test_nobody_signs_without_agreeing(office):
    name = office.asked()
    ran = office.shell("exception", "approve", name, "--config", office.config, "--key", office.folder / "dana.pem")
    assert ran.code == 2
    assert f"exception      {name}" in ran.out
    assert "give --yes" in ran.err
    assert office.files() == [f"{name}.draft"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--hours", 25), "longer than 86400 s"),
        (("--from", "2020-01-01T00:00:00Z"), "its window is over"),
        (("--from", "yesterday"), "no RFC 3339 instant"),
        (("--category", "id_contakt"), "did you mean id_contact"),
        (("--subjects", "everybody"), "payload"),
        (("--ticket", "INC"), "ticket 'INC' does not match"),
        (("--justification", "because I say so"), "justification 'because I say so' does not match"),
        (("--max-records", 0), "payload"),
    ],
)
def test_what_could_never_be_approved_is_no_draft(office, more, why):
    ran = office.request(*more)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert office.files() == []


def test_services_that_the_descriptors_do_not_have(office):
    found = descriptor_pb2.FileDescriptorSet()
    from sidecar.api.v1 import annotations_pb2

    for module in (descriptor_pb2, empty_pb2, annotations_pb2, profiles_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    (office.folder / "set.binpb").write_bytes(found.SerializeToString())
    tree = yaml.safe_load(office.config.read_text())
    tree["describe"]["descriptors"] = {"file": "set.binpb"}
    office.write(tree)
    name = office.asked()
    ran = office.request("--service", "sidecar.demo.profiles.v1.Profile")
    assert (ran.code, "unknown service" in ran.err, f"{SERVICE!r}" in ran.err) == (2, True, True)
    draft = office.grants / f"{name}.draft"
    bent = json.loads(draft.read_text())
    bent["payload"]["scope"]["services"] = ["nobody.v1.Nobody"]
    draft.write_text(json.dumps(bent))
    assert "unknown service" in office.approve(name, "dana").err
    assert office.files() == [f"{name}.draft"]


def test_one_s_own_exception(office):
    for people in ({"person": "dana"}, {"by": "Dana"}):
        name = office.asked(**people)
        ran = office.approve(name, "dana")
        assert (ran.code, "dana approves their own exception" in ran.err) == (2, True)
        assert f"{name}.draft" in office.files()


def test_the_same_approver_twice(office):
    name = office.asked()
    office.approve(name, "dana")
    assert "signed already" in office.approve(name, "dana").err
    assert office.files() == [f"{name}.part"]


def test_a_key_that_nobody_knows(office):
    name = office.asked()
    ran = office.shell("keys", "new", office.folder / "other.pem")
    assert ran.code == 0
    assert "this key is not listed" in office.approve(name, "other").err
    (office.folder / "none.pem").write_text("nothing")
    assert "no Ed25519 private key" in office.approve(name, "none").err
    assert "No such file" in office.approve(name, "nobody").err
    assert office.files() == [f"{name}.draft"]


def test_a_bent_part_is_not_signed_on(office):
    name = office.asked()
    office.approve(name, "dana")
    part = office.grants / f"{name}.part"
    payload = papers.read(part).payload
    forged = json.loads(sign_grant(payload | {"person": "mallory"}, KEYS["eli"], "dana"))
    part.write_text(json.dumps(forged))
    assert "signature of dana does not verify" in office.approve(name, "eli").err
    assert office.files() == [f"{name}.part"]


def test_offline_the_file_travels(office, tmp_path_factory):
    name = office.asked()
    away = tmp_path_factory.mktemp("laptop") / f"{name}.draft"
    (office.grants / f"{name}.draft").rename(away)
    assert office.approve(away, "dana").code == 0
    back = away.with_suffix(".part")
    assert back.exists()
    assert not away.exists()
    assert office.approve(back, "eli").code == 0
    assert office.in_force().in_force == (name,)
    assert not back.exists()


def test_two_who_approve_one_draft_at_once(office):
    name = office.asked()
    desk = ExceptionDesk(grants=office.grants, approvers=office.folder / "approvers.yaml", max_window=86_400, services=None,
                         ticket=".*", justification=".*")  # fmt: skip
    seen = desk.pending(name)
    assert office.approve(name, "dana").code == 0
    with pytest.raises(Exception, match="exists already"):
        desk.approve(seen, KEYS["eli"], time.time())
    assert papers.read(office.grants / f"{name}.part").signers == ("dana",)


def test_a_window_that_ends_while_it_waits(office):
    name = office.asked("--hours", "0.01")
    desk = ExceptionDesk(grants=office.grants, approvers=office.folder / "approvers.yaml", max_window=86_400, services=None,
                         ticket=".*", justification=".*")  # fmt: skip
    with pytest.raises(Exception, match="its window is over"):
        desk.approve(desk.pending(name), KEYS["dana"], time.time() + 60)
    assert [row.state for row in desk.rows(time.time() + 60)] == ["damaged"]


def test_names_that_are_not_there(office):
    name = office.asked()
    ran = office.approve(name[:-1], "dana")
    assert (ran.code, name in ran.err) == (2, True)
    ran = office.shell(
        "exception", "revoke", "EX-9", "--config", office.config, "--key", office.folder / "fay.pem", "--reason", "x"
    )
    assert (ran.code, "there is no such exception" in ran.err) == (2, True)
    office.approve(name, "dana")
    office.approve(name, "eli")
    assert "has its approvals already" in office.approve(name, "fay").err


def test_the_list_names_what_is_damaged(office):
    name = office.asked()
    (office.grants / "bad.json").write_text("{")
    (office.grants / "bad.part").write_text("{")
    (office.grants / "odd.revoked").write_text("{")
    code, rows = office.listed()
    assert code == 1
    assert {key: row["state"] for key, row in rows.items()} == {name: "draft", "bad": "damaged", "odd": "damaged"}
    shown = office.shell("exception", "list", "--config", office.config)
    assert (shown.code, shown.out.count("damaged")) == (1, 3)


def test_without_exceptions_in_the_settings(office):
    tree = yaml.safe_load(office.config.read_text())
    del tree["exceptions"]
    office.write(tree)
    assert "no exceptions are configured" in office.shell.refused("exception", "list", "--config", office.config)
