"""`sidecar demo` as a user runs it, and what it leaves behind: judged by others' tools, started again, asked."""

import contextlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from deployment import Caller, sidecar

from sidecar.demo.pki import Pair
from sidecar.demo.processes import Processes, listening
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.world import ORIGIN, PRODUCER, PRODUCER_ABROAD, sidecar_command

SCENES = 18
SECONDS = 240
"""More than it takes on a machine that does other things as well; without those, it is a fifth of that."""


class Played:
    """A demo that has been played, in its folder."""

    def __init__(self, folder: Path, report: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder, self.done = folder, done
        self.report = json.loads(report.read_text()) if report.exists() else {}
        self.log = folder / "oversight" / "log"

    def users(self, what: str) -> list[str]:
        with sqlite3.connect(self.folder / "users.sqlite") as database:
            rows = [str(row[0]) for row in database.execute(f"SELECT {what} FROM users")]
        database.close()
        return rows

    def us_user(self) -> int:
        with sqlite3.connect(self.folder / "users.sqlite") as database:
            (user,) = database.execute("SELECT id FROM users WHERE country = 'US' LIMIT 1").fetchone()
        database.close()
        return int(user)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("demo")
    report = folder / "report.json"
    done = sidecar("demo", "--data", folder / "data", "--json", report, seconds=600)
    return Played(folder / "data", report, done)


def parts_of(folder: Path) -> list[str]:
    """The command lines of processes that run with files of this folder."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append(one.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [one for one in found if f"{folder}/" in one]


def test_a_demo_that_is_told_to_stop_leaves_nothing_running(tmp_path: Path) -> None:
    """Its parts have sessions of their own: no signal but the demo's own reaches them."""
    folder = tmp_path / "data"
    command = sidecar_command("demo", "--data", folder)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        until = time.monotonic() + SECONDS
        while len(parts_of(folder)) < 2 and demo.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert len(parts_of(folder)) >= 2
        demo.terminate()
        assert demo.wait(SECONDS) == 128 + signal.SIGTERM
    assert parts_of(folder) == []


def test_every_scene_goes_as_expected_and_everything_is_proven(played: Played) -> None:
    assert played.done.returncode == 0, played.done.stdout + played.done.stderr
    report = played.report
    print(f"demo: {len(report['scenes'])} scenes, {report['records']} records, {report['seconds']} s")
    assert set(report) == {
        "scenes", "records", "checkpoint_size", "all_records_verified", "tamper_detected", "flip_found", "seconds",
    }  # fmt: skip
    assert len(report["scenes"]) >= SCENES
    for scene in report["scenes"]:
        assert set(scene) == {"name", "expected", "got", "reason", "call_id", "as_expected"}
        assert (scene["as_expected"], scene["got"]) == (True, scene["expected"])
    assert report["all_records_verified"] is True
    assert report["tamper_detected"] is True
    assert report["flip_found"] is True
    assert report["checkpoint_size"] >= report["records"] > 2 * SCENES, "asking is recorded too, so the log has grown"
    assert report["seconds"] <= SECONDS
    assert "Traceback" not in played.done.stdout + played.done.stderr


def test_scenes_name_their_calls(played: Played) -> None:
    unnamed = [scene["name"] for scene in played.report["scenes"] if not scene["call_id"]]
    assert unnamed == ["a direct call past the sidecar"], "every call that met a sidecar is named, permitted or refused"


def test_a_folder_that_is_in_use_is_refused(played: Played) -> None:
    done = sidecar("demo", "--data", played.folder)
    assert (done.returncode, "is not empty" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


# -- others' tools -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fsck(needs: Callable[[str, str], Path], played: Played) -> Callable[[Path], subprocess.CompletedProcess[str]]:
    program = needs("tlog-fsck", "install Go 1.26 or newer and run `make tools`")

    def run(log: Path) -> subprocess.CompletedProcess[str]:
        command = [str(program), "log", str(log), str(played.folder / "oversight" / "log.vkey"), ORIGIN]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_an_independent_verifier_finds_the_log_intact(
    fsck: Callable[[Path], subprocess.CompletedProcess[str]], played: Played
) -> None:
    done = fsck(played.log)
    assert (done.returncode, done.stdout) == (0, "log is intact\n"), done.stderr


@pytest.mark.parametrize("kind", ["tile/entries", "tile/0", "checkpoint"])
def test_one_altered_byte_in_a_copy_is_found_by_it_and_by_our_own_audit(
    fsck: Callable[[Path], subprocess.CompletedProcess[str]], played: Played, tmp_path: Path, kind: str
) -> None:
    copy = tmp_path / "log"
    shutil.copytree(played.log, copy)
    files = [one for one in (copy / kind).rglob("*") if one.is_file()] or [copy / kind]
    newest = max(files, key=lambda one: one.stat().st_size)
    data = bytearray(newest.read_bytes())
    data[len(data) // 3] ^= 1
    newest.write_bytes(data)
    assert fsck(copy).returncode == 1
    done = sidecar("oversight", "audit", copy, "--trust", played.folder / "trust.txt")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert kind in done.stdout


# -- started again -------------------------------------------------------------------------------------------------------


class Again:
    """The demo's folder, running again with its own two settings files."""

    def __init__(self, played: Played) -> None:
        self.folder = played.folder
        self.sidecar = yaml.safe_load((self.folder / "sidecar.yaml").read_text())
        self.store = yaml.safe_load((self.folder / "oversight.yaml").read_text())
        self.review = ["--store", self.store["listen"]["query"].replace("127.0.0.1", "localhost"), "--ca", str(self.folder / "ca.pem"),
                       "--cert", str(self.folder / "tls" / "reviewer.pem"), "--key", str(self.folder / "tls" / "reviewer.key")]  # fmt: skip
        self.people = played.users("id")

    def call(self, user: int, token: str = "amy") -> tuple[str, str]:
        tls = self.folder / "tls"
        port = int(self.sidecar["listen"][0]["address"].rpartition(":")[2])
        caller = Caller(port, self.folder / "ca.pem", Pair(tls / "console.pem", tls / "console.key"))
        metadata = [("authorization", f"Bearer {(self.folder / 'tokens' / f'{token}.jwt').read_text()}"),
                    ("x-customhouse-purpose", "user_support"), ("x-customhouse-ticket", "SUP-77")]  # fmt: skip
        try:
            answer = caller.call("GetProfile", [pb.GetProfileRequest(user_id=user).SerializeToString()], metadata)
        finally:
            caller.close()
        return answer.said, answer.call_id

    def ask(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = sidecar("oversight", *arguments)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def again(played: Played) -> Iterator[Again]:
    one = Again(played)
    processes = Processes(played.folder / "logs")
    service, tls = one.sidecar["upstream"]["address"].rpartition(":")[2], played.folder / "tls"
    parts = {
        "service": ([sys.executable, "-m", "sidecar.demo.service", str(played.folder / "users.sqlite"), f"127.0.0.1:{service}",
                     str(tls / "upstream.pem"), str(tls / "upstream.key"), str(tls / "upstream-clients-ca.pem")], service),
        "store": (sidecar_command("oversight", "run", "--config", played.folder / "oversight.yaml"), one.store["listen"]["append"]),
        "ledger": (sidecar_command("ledger", "run", "--config", played.folder / "ledger.yaml"), one.sidecar["ledger"]["address"]),
        "sidecar": (sidecar_command("run", "--config", played.folder / "sidecar.yaml"), one.sidecar["listen"][0]["address"]),
    }  # fmt: skip
    try:
        for name, (command, address) in parts.items():
            processes.start(name, command, listening(int(address.rpartition(":")[2])))
        yield one
    finally:
        processes.stop_all()


def test_its_settings_run_again_as_they_are_and_calls_are_recorded(again: Again) -> None:
    said, call_id = again.call(int(again.people[-1]))
    assert said == "OK" or said.startswith("PERMISSION_DENIED subjects_unknown")
    rows = search_until(again, "--call-id", call_id, count=2)
    assert [row["leaf"]["type"] for row in rows] == ["decision", "outcome"]
    assert rows[0]["standing"] == "chain", "the new epoch continues the one before"


def search_until(again: Again, *arguments: str, count: int) -> list[dict]:
    end = time.monotonic() + 60
    while True:
        done = again.ask("search", *arguments, "--json", *again.review)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        if len(rows) >= count:
            return rows
        assert time.monotonic() < end, (done.stdout, done.stderr)


def test_search_finds_by_every_option(again: Again, played: Played) -> None:
    user = played.us_user()
    said, call_id = again.call(user, "niall")
    assert said == "PERMISSION_DENIED not_us_personnel"
    decision = search_until(again, "--call-id", call_id, "--type", "decision", count=1)[0]
    found = {
        ("--person", "niall"), ("--reason", decision["body"]["decision"]["reasons"][0]["code"]), ("--effect", "deny"),
        ("--trace", decision["body"]["trace"]["trace_id"]), ("--producer", PRODUCER), ("--since", decision["leaf"]["time"]),
        ("--service", decision["body"]["service"]), ("--category", "id_contact"), ("--subject", str(user)), ("--type", "decision"),
    }  # fmt: skip
    for option, value in sorted(found):
        done = again.ask("search", option, value, "--limit", "0", "--json", *again.review)
        assert done.returncode == 0, (option, done.stderr)
        indices = [json.loads(line)["index"] for line in done.stdout.splitlines()]
        assert decision["index"] in indices, option
        assert indices == sorted(indices)
    none = again.ask("search", "--person", "nobody-here", *again.review)
    assert (none.returncode, "no record matches" in none.stderr) == (1, True)
    before = again.ask("search", "--call-id", call_id, "--until", decision["leaf"]["time"], "--json", *again.review)
    assert before.returncode == 1, "until is exclusive"
    table = again.ask("search", "--call-id", call_id, *again.review)
    assert "niall" in table.stdout
    assert call_id in table.stdout
    looked = again.ask("search", "--type", "reviewer_access", "--limit", "0", "--json", *again.review)
    assert len(looked.stdout.splitlines()) > len(found), "every search became a record itself"


def test_prove_and_verify_offline(again: Again, played: Played, tmp_path: Path) -> None:
    file, trust = tmp_path / "record.tlog-proof", played.folder / "trust.txt"
    done = again.ask("prove", "5", "-o", file, *again.review)
    assert done.returncode == 0, done.stderr
    good = again.ask("verify", file, "--trust", trust)
    assert (good.returncode, good.stdout.startswith("proven: record 5 ")) == (0, True), good.stderr
    shown = json.loads(again.ask("verify", file, "--trust", trust, "--json").stdout)
    assert shown["index"] == 5
    data = file.read_bytes()
    for at in (len(data) // 4, len(data) // 2, len(data) - 20):
        altered = bytearray(data)
        altered[at] ^= 1
        file.write_bytes(altered)
        bad = again.ask("verify", file, "--trust", trust)
        assert (bad.returncode, bad.stdout) == (1, ""), at
    beyond = again.ask("prove", "99999999", "-o", file, *again.review)
    assert beyond.returncode in (1, 2)
    strangers = again.ask("verify", file, "--trust", again.folder / "ca.pem")
    assert (strangers.returncode, "is no trust file" in strangers.stderr) == (2, True)


def test_audit_producers_and_those_who_may_not_ask(again: Again, played: Played) -> None:
    audit = ["audit", played.log, "--trust", played.folder / "trust.txt"]
    done = again.ask(*audit, "--database", played.folder / "oversight" / "records.sqlite")
    assert (done.returncode, "sound" in done.stdout) == (0, True), done.stdout
    told = json.loads(again.ask(*audit, "--json").stdout)
    assert (told["sound"], told["findings"]) == (True, [])
    listed = again.ask("producer", "list", "--config", played.folder / "oversight.yaml")
    assert listed.returncode == 0
    assert PRODUCER in listed.stdout
    assert PRODUCER_ABROAD in listed.stdout
    tls = played.folder / "tls"
    stranger = [*again.review[:4], "--cert", str(tls / "console.pem"), "--key", str(tls / "console.key")]
    refused = again.ask("search", *stranger)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "PERMISSION_DENIED" in refused.stderr or "UNAUTHENTICATED" in refused.stderr


def test_the_sidecars_commands(again: Again) -> None:
    config = ("--config", again.folder / "sidecar.yaml")
    status = sidecar("status", "--json", *config)
    assert status.returncode == 0, status.stdout
    told = json.loads(status.stdout)
    assert (told["producer"], told["problems"]) == (PRODUCER, [])
    assert PRODUCER in sidecar("status", *config).stdout
    described = sidecar("describe", "--json", *config)
    assert described.returncode == 0, described.stdout
    assert "ImportContacts" in described.stdout
    assert "GetProfile" in sidecar("describe", *config).stdout
    doctor = sidecar("doctor", *config)
    assert doctor.returncode == 0, doctor.stdout
    assert "FAIL" not in doctor.stdout
    checked = sidecar("check-config", *config)
    assert (checked.returncode, "tests pass" in checked.stdout) == (0, True)
    wrong = sidecar("status", "--config", again.folder / "sidecar-abroad.yaml")
    assert (wrong.returncode, "no sidecar answers" in wrong.stderr) == (2, True)


# -- what may stand where --------------------------------------------------------------------------------------------------

UNMARKED = rb"(?<![0-9A-Za-z+/=._-])%s(?![0-9A-Za-z+/=._-])"


def places(played: Played) -> dict[str, bytes]:
    files = [
        *(played.folder / "logs").iterdir(),
        *played.folder.glob("spool*/**/*"),
        *(played.folder / "oversight").rglob("*"),
    ]
    return {str(file.relative_to(played.folder)): file.read_bytes() for file in files if file.is_file()}


def test_no_personal_data_and_no_token_stands_in_logs_spools_or_the_store(played: Played, again: Again) -> None:
    user = int(again.people[-7])
    again.call(user)
    time.sleep(1.5)
    secret = {
        value.encode()
        for column in ("email", "phone", "login", "government_id", "handle")
        for value in played.users(column)
    }
    words = re.compile(rb"[a-z]+\d+(?:@mail\.example|\.login)?|\+1555\d{7}|\d{3}-\d\d-\d{4}")
    tokens = [file.read_text() for file in (played.folder / "tokens").iterdir()]
    for name, data in places(played).items():
        assert not secret & set(words.findall(data)), name
        assert b"@mail.example" not in data, name
        assert not re.search(UNMARKED % str(user).encode(), data), f"the id of a data subject in {name}"
        for token in tokens:
            header, payload, signature = token.encode().split(b".")
            assert payload not in data, name
            assert signature not in data, name


def test_logs_hold_no_traceback_and_only_json_of_our_own(played: Played) -> None:
    for name in ("sidecar", "sidecar-abroad", "store"):
        text = (played.folder / "logs" / f"{name}.log").read_text()
        assert text
        assert "Traceback" not in text
        ours = [line for line in text.splitlines() if line.startswith("{")]
        assert all({"event", "level", "component", "timestamp"} <= set(json.loads(line)) for line in ours)


def test_a_body_names_data_subjects_only_by_pseudonym(again: Again) -> None:
    rows = [
        json.loads(line) for line in again.ask("search", "--limit", "0", "--json", *again.review).stdout.splitlines()
    ]
    decisions = [row["body"] for row in rows if row["leaf"]["type"] == "decision"]
    named = [one for body in decisions for one in body["subjects"]]
    assert len(named) > 50
    for one in named:
        assert set(one) == {"class", "ref", "period"}
        assert len(b64decode(one["ref"], validate=True)) == 32
    assert len({one["ref"] for one in named}) == len(named), (
        "a fresh salt each time: nobody can be followed across records"
    )
    ids = set(again.people)
    for body in decisions:
        texts = set(strings(body["input"])) | set(strings(body["decision"]))
        assert not texts & ids


def strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value
