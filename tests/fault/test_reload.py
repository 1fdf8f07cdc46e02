"""Everything that may be replaced while two workers serve is replaced under load: no wrong decision, no lost call.

Policy, directory, subject index, an issuer's keys, approvers, the trust file, and the certificates of the listener and of
the way to the service. CUSTOMHOUSE_CAMPAIGN=long replaces each of them 20 times.
"""

import datetime as dt
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import yaml
from deployment import Answer, wait
from minimal_policy import write_policy
from puppet import Puppet
from worker_rig import KINDS, RETRIABLE, SOON, Load, Several, doubled, findings, unrecorded, until

from sidecar.decision.folder import load_folder
from sidecar.demo import staff, world
from sidecar.demo.pki import Authority
from sidecar.demo.tokens import STAFF, IdentityProvider
from sidecar.demo.world import CONSOLE

SHORT, LONG = 2, 20
DENY = {"effect": "deny", "reasons": [{"code": "not_us_personnel", "message": "not now", "rule": "sidecar.trial"}]}


@dataclass
class Replacing:
    """Replaces each part, and knows what decisions must follow from which revision."""

    deployment: Several
    effects: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder = self.deployment.folder
        self.ca = Authority(self.folder / "tls", "second", dt.datetime.now(dt.UTC))
        for file in (self.folder / "ca.pem", self.folder / "tls" / "upstream-clients-ca.pem"):
            file.write_bytes(file.read_bytes() + self.ca.cert.read_bytes())
        self.deployment.upstream.stop()
        self.deployment.upstream = Puppet(self.deployment.world)  # which lets certificates of the second authority in
        self.policies = write_policy(self.folder.parent / "policies")
        self.effects[load_folder(self.policies).revision] = "permit"
        tls = {"cert": "tls/door.pem", "key": "tls/door.key", "client_ca": "ca.pem"}
        for end in ("pem", "key"):
            shutil.copy(self.folder / "tls" / f"proxy.{end}", self.folder / "tls" / f"door.{end}")
        address = yaml.safe_load((self.folder / "sidecar.yaml").read_text())["listen"][0]["address"]
        self.deployment.configure(
            listen=[{"door": "proxy", "address": address, "tls": tls}], policy__bundle__folder=str(self.policies)
        )

    def everything(self, number: int) -> None:
        """Each part once, all at the same time; returns when both workers have taken all of it up."""
        waits = [self.policy(number), self.directory(number), self.index(number), self.keys(number),
                 self.approvers(number), self.trust(number), self.door(number), self.upstream(number)]  # fmt: skip
        for holds, what in waits:
            wait(holds, SOON, f"round {number}: {what}")

    def policy(self, number: int) -> tuple[Callable[[], bool], str]:
        decision = DENY if number % 2 else {}
        beside = write_policy(self.folder.parent / "next", ttl_seconds=50 + number, **decision)
        revision = load_folder(beside).revision
        self.effects[revision] = "deny" if decision else "permit"
        self.policies.rename(self.folder.parent / f"old-{number}")
        beside.rename(self.policies)
        return lambda: self.everywhere("policy", revision), "policy"

    def directory(self, number: int) -> tuple[Callable[[], bool], str]:
        stamp = dt.datetime.now(dt.UTC).strftime(staff.STAMP)
        rows, (file, entities) = staff.people(stamp), staff.write(self.folder, stamp)
        file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "id": f"new-{number}"}]))
        before = self.seen("directory")
        world.run("directory", "build", file, entities, self.folder / "people.snapshot")
        return lambda: self.changed("directory", before), "directory"

    def index(self, number: int) -> tuple[Callable[[], bool], str]:
        country = "DE" if number % 2 else "US"
        mine = str(self.deployment.world.cast.us)
        header, *rows = (self.folder / "users.csv").read_text().splitlines()
        built = [
            f"{one.split(',')[0]},{country},{one.split(',')[2]}" if one.split(",")[0] == mine else one for one in rows
        ]
        # A row of this round's own, so that no two rounds have one revision.
        built.append(f"{9_000_000 + number},FR,{rows[0].split(',')[2]}")
        source = self.folder / "next.csv"
        source.write_text("\n".join([header, *built]) + "\n")
        before = self.seen("index")
        world.run("subjects", "build", source, self.folder / "us-subjects.idx")
        expected = "non_us" if number % 2 else "us"

        def taken() -> bool:
            if not self.changed("index", before):
                return False
            self.classes[next(iter(self.seen("index")))] = expected
            return True

        return taken, "index"

    def keys(self, number: int) -> tuple[Callable[[], bool], str]:
        """The issuer announces a second key beside the first; once both workers have it, tokens are signed with it."""
        issuer = IdentityProvider(STAFF, f"staff-{number + 2}")
        file, beside, old = self.folder / "staff-jwks.json", self.folder / "staff.new", self.folder / "staff.old"
        shutil.copy(file, old)
        issuer.write_jwks(beside)
        known = json.loads(old.read_text())["keys"]
        fresh = json.loads(beside.read_text())["keys"]
        beside.write_text(json.dumps({"keys": known[-1:] + fresh}))
        before = len(self.lines("jwks_refreshed", "staff-jwks"))
        beside.rename(file)

        def taken() -> bool:
            if len(self.lines("jwks_refreshed", "staff-jwks")) < before + 2:
                return False
            self.deployment.world.tokens["amy"] = issuer.token("amy", CONSOLE, time.time())
            return True

        return taken, "keys of the issuer"

    def approvers(self, number: int) -> tuple[Callable[[], bool], str]:
        """Nobody may approve any more, and then they may again: the grant that they signed follows."""
        file = self.folder / "approvers.yaml"
        if not hasattr(self, "_approvers"):
            self._approvers = file.read_text()
        beside = file.with_suffix(".new")
        listed = yaml.safe_load(self._approvers)["approvers"]
        beside.write_text(yaml.safe_dump({"approvers": listed[:1] if number % 2 else listed}))
        beside.rename(file)
        refused = bool(number % 2)

        def taken() -> bool:
            said = [
                any("exceptions: " in text for text in one["problems"]) for one in self.deployment.answers_of_workers()
            ]
            return said == [refused] * 2

        return taken, "approvers"

    def trust(self, number: int) -> tuple[Callable[[], bool], str]:
        file = self.folder / "trust.txt"
        beside = file.with_suffix(".new")
        beside.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if line[0] != "#")
                          + f"# round {number}\n")  # fmt: skip
        before = self.deployment.told("trust_taken_up")
        beside.rename(file)
        return lambda: self.deployment.told("trust_taken_up") >= before + 2, "trust"

    def door(self, number: int) -> tuple[Callable[[], bool], str]:
        before = self.deployment.told("certificate taken up")
        self.issue("door", number, hosts=("localhost",))
        # gRPC asks for the certificate at a handshake: the load makes some.
        return lambda: self.deployment.told("certificate taken up") >= before + 2, "certificate of the listener"

    def upstream(self, number: int) -> tuple[Callable[[], bool], str]:
        before = self.deployment.told("upstream_certificates_taken_up")
        self.issue("to-upstream", number, spiffe="spiffe://acme/sidecar")
        return (
            lambda: self.deployment.told("upstream_certificates_taken_up") >= before + 2,
            "certificate to the service",
        )

    def issue(self, name: str, number: int, **names: object) -> None:
        """A new certificate and key in the place of the old ones: two renames, as certificate managers do."""
        pair = self.ca.issue(f"{name}-{number}", **names)  # type: ignore[arg-type]
        pair.key.rename(self.folder / "tls" / f"{name}.key")
        pair.cert.rename(self.folder / "tls" / f"{name}.pem")

    def lines(self, event: str, part: str) -> list[dict[str, object]]:
        return [one for one in self.deployment.said(event) if part in str(one["detail"])]

    def seen(self, key: str) -> set[str]:
        return {str(one[key]) for one in self.deployment.answers_of_workers()}

    def changed(self, key: str, before: set[str]) -> bool:
        found = self.deployment.answers_of_workers()
        return len(found) == 2 and len(self.seen(key)) == 1 and not self.seen(key) & before

    def everywhere(self, key: str, value: str) -> bool:
        found = self.deployment.answers_of_workers()
        return len(found) == 2 and self.seen(key) == {value}

    def wrong(self, answers: list[Answer]) -> list[object]:
        """Answers that differ from what the revisions in their records say."""
        recorded, found = self.deployment.calls(), []
        for answer in answers:
            if answer.status not in ("OK", "PERMISSION_DENIED"):
                continue
            for body in recorded[answer.call_id].decisions:
                effect = body["decision"]["effect"]  # type: ignore[index]
                # An answer that says itself where its subject lives counts as much as the index does.
                kinds = {one["class"] for one in body["subjects"] if body["phase"] == "request"}  # type: ignore[attr-defined]
                expected = self.classes.get(str(body["index"]), "us")  # as the index was at the start
                if effect != self.effects[body["policy"]["revision"]] or not kinds <= {expected}:  # type: ignore[index]
                    found.append((expected, kinds, effect, body))
            if (answer.status == "OK") != (recorded[answer.call_id].effects[-1] == "permit"):
                found.append(answer)
        return found


@pytest.fixture(scope="module", params=KINDS)
def replacing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replacing]:
    deployment = request.param(tmp_path_factory.mktemp("reload") / "world")
    found = Replacing(deployment)
    with deployment:
        deployment.grant("INC-7", person="niall")
        wait(lambda: all(not one["problems"] for one in deployment.answers_of_workers()), SOON, "the grant is in force")
        yield found


@pytest.mark.timeout(0)
def test_everything_is_replaced_under_load_with_no_wrong_decision_and_no_lost_call(
    replacing: Replacing, long_campaign: bool
) -> None:
    deployment, rounds = replacing.deployment, LONG if long_campaign else SHORT
    with Load(deployment, threads=4) as load:
        for number in range(1, rounds + 1):
            replacing.everything(number)
            begun = len(load.answers)
            wait(lambda: len(load.answers) > begun + 20, SOON, "the load goes on")  # noqa: B023
    deployment.delivered(60)
    counted = load.counted()
    print(f"\n{rounds} replacements of eight parts: {counted}")
    assert set(counted) - {"OK", "PERMISSION_DENIED"} <= RETRIABLE, counted
    assert min(counted["OK"], counted["PERMISSION_DENIED"]) > 10
    assert replacing.wrong(load.answers) == []
    until(lambda: unrecorded(deployment, load.answers) == [], "every answered call has its records")
    assert doubled(deployment) == []
    assert findings(deployment) == []


def test_files_that_cannot_be_used_are_told_and_what_was_in_force_stays(replacing: Replacing) -> None:
    deployment = replacing.deployment
    for name, event in (("trust.txt", "trust_refused"), ("tls/to-upstream.key", "upstream_certificates_refused")):
        file = deployment.folder / name
        good = file.read_bytes()
        file.write_bytes(b"nothing of the kind\n")
        wait(lambda: deployment.told(event) >= 2, SOON, event)  # noqa: B023
        assert deployment.profile().status == "OK"
        file.write_bytes(good)
    deployment.delivered()
