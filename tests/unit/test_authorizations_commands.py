"""`sidecar authorization`: drafts, offline signatures, installation, verification, and the list."""

import json
import re
import time

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from grant_signing import ALL_SIGNERS, KEYS, authorized
from settings_files import SIDECAR

from sidecar.administration.authorization_desk import AuthorizationDesk
from sidecar.exceptions.authorization_store import AuthorizationStore

pytestmark = pytest.mark.unit
SERVICE = "sidecar.demo.profiles.v1.Profiles"


def later(days):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * 86_400))


class Office:
    def __init__(self, folder, shell):
        self.folder, self.shell = folder, shell
        self.config, self.file = folder / "sidecar.yaml", folder / "dsp" / "authorizations.jsonl"
        self.attestations = self.file.with_name("attestations.jsonl")
        self.file.parent.mkdir()
        self.keys = folder / "signers.yaml"
        self.keys.write_bytes(ALL_SIGNERS)
        tree = yaml.safe_load(SIDECAR)
        tree["describe"]["descriptors"] = {"reflection": True}
        tree["identity"]["authorizations"] = {"file": "dsp/authorizations.jsonl", "keys": "signers.yaml"}
        self.config.write_text(yaml.safe_dump(tree))
        for name, key in KEYS.items():
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (folder / f"{name}.pem").write_bytes(pem)

    def run(self, command, *more):
        return self.shell("authorization", command, *more, "--config", self.config)

    def request(self, *more, kind="exemption", paragraph="202.506(a)(2)(viii)", until=None):
        return self.run("request", "--kind", kind, "--paragraph", paragraph, "--person", "p1", "--group", "acme", "--service",
                       SERVICE, "--category", "id_contact", "--purpose", "user_support", "--owner", "olga", "--until",
                       until or later(90), *more)  # fmt: skip

    def asked(self, *more, **changes):
        ran = self.request(*more, **changes)
        assert (ran.code, ran.err) == (0, "")
        return re.match(r"draft (\S+): ", ran.out)[1]

    def attest(self, officer="fay"):
        ran = self.run(
            "attest", "--version", "2025-01", "--service", SERVICE, "--officer", officer, "--until", later(365)
        )
        assert (ran.code, ran.err) == (0, "")
        return re.match(r"draft (\S+): ", ran.out)[1]

    def sign(self, name, who):
        return self.run("sign", name, "--key", self.folder / f"{who}.pem", "--yes")

    def files(self):
        return sorted(path.name for path in self.file.parent.iterdir())

    def in_force(self):
        store = AuthorizationStore(file=self.file, keys=self.keys, clock=time.time, on_event=lambda _event: None)
        store.load()
        return store.in_force()

    def listed(self):
        ran = self.run("list", "--json")
        return ran.code, {row["id"]: row for row in json.loads(ran.out)}


@pytest.fixture
def office(tmp_path, shell):
    return Office(tmp_path, shell)


def test_an_exemption_from_draft_to_force(office):
    name = office.asked()
    assert office.files() == [f"{name}.draft"]
    assert "1 more signer is needed" in office.sign(name, "dana").out
    assert office.files() == [f"{name}.part"]
    last = office.sign(name, "eli")
    assert "signed by      dana" in last.out
    assert f"signed by eli; installed: {office.file}" in last.out
    assert office.files() == ["authorizations.jsonl"]
    assert office.in_force() == (name,)
    code, rows = office.listed()
    assert (code, rows[name]["state"], rows[name]["persons"], rows[name]["signers"]) == (
        0,
        "in_force",
        ["p1"],
        ["dana", "eli"],
    )


def test_a_licence_takes_one_and_lines_are_added(office):
    names = [office.asked(kind="specific_licence", paragraph=f"L-{number}") for number in range(3)]
    for name in names:
        assert "installed" in office.sign(name, "dana").out
    assert office.in_force() == tuple(sorted(names))
    assert len(office.file.read_bytes().splitlines()) == 3


def test_the_officer_attests(office):
    name = office.attest()
    assert "for its officer, fay" in office.sign(name, "dana").err
    assert "installed" in office.sign(name, "fay").out
    assert office.files() == ["attestations.jsonl"]
    office.file.write_bytes(b"")
    assert office.in_force() == (name,)
    assert office.listed()[1][name]["type"] == "attestation"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"paragraph": "202.401"}, "is no exemption"),
        ({"kind": "waiver"}, "payload"),
        ({"until": later(400)}, "longer than 366 days"),
        ({"until": "soon"}, "no RFC 3339 instant"),
        ({"until": "2020-01-01T00:00:00Z"}, "window is empty"),
    ],
)
def test_what_could_never_be_signed_is_no_draft(office, change, why):
    ran = office.request(**change)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert office.files() == []


def test_who_may_not_sign(office):
    name = office.asked("--person", "eli")
    assert "eli signs for themselves" in office.sign(name, "eli").err
    assert "1 more signer" in office.sign(name, "dana").out
    assert "signed already" in office.sign(name, "dana").err
    tree = yaml.safe_load(office.keys.read_text())
    tree["signers"][2]["may"] = ["attestation"]
    office.keys.write_text(yaml.safe_dump(tree))
    assert "fay may not sign for exemption" in office.sign(name, "fay").err
    assert office.files() == [f"{name}.part"]


def test_an_id_is_installed_once(office):
    name = office.asked(kind="general_licence", paragraph="GL-1")
    draft = (office.file.parent / f"{name}.draft").read_bytes()
    office.sign(name, "dana")
    (office.file.parent / f"{name}.draft").write_bytes(draft)
    assert "has a line of this id already" in office.sign(name, "eli").err
    assert len(office.file.read_bytes().splitlines()) == 1


def test_verify(office):
    name = office.asked(kind="general_licence", paragraph="GL-1")
    office.sign(name, "dana")
    ran = office.run("verify", office.file)
    assert (ran.code, ran.out) == (0, f"{office.file}:1: {name}: signed by dana; in force\n")
    with office.file.open("ab") as file:
        file.write(b"\n{}\n" + authorized("dana") + b"\n")
    ran = office.run("verify", office.file)
    assert ran.code == 1
    assert [line.split(": ")[1] for line in ran.out.splitlines()] == [name, "does not hold", "does not hold"]
    code, rows = office.listed()
    assert (code, rows[name]["state"]) == (1, "in_force")
    assert sum(row["state"] == "damaged" for row in rows.values()) == 2
    assert "No such file" in office.run("verify", office.folder / "none").err


def test_a_window_that_is_over_is_not_signed(office):
    name = office.asked()
    desk = AuthorizationDesk(file=office.file, keys=office.keys, services=None)
    with pytest.raises(Exception, match="its window is over"):
        desk.sign(desk.pending(name), KEYS["dana"], time.time() + 91 * 86_400)
    desk = AuthorizationDesk(file=office.file, keys=office.keys, services=frozenset({"other.v1.Other"}))
    with pytest.raises(Exception, match="unknown service"):
        desk.sign(desk.pending(name), KEYS["dana"], time.time())


def test_without_authorizations_in_the_settings(office):
    tree = yaml.safe_load(office.config.read_text())
    del tree["identity"]["authorizations"]
    office.config.write_text(yaml.safe_dump(tree))
    assert "no authorizations are configured" in office.shell.refused(
        "authorization", "list", "--config", office.config
    )
