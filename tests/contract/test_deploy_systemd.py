"""The units for hosts: read by systemd's own tools where they are, and by us everywhere."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest
import typer
from helm_parts import ROOT

from sidecar.cli.app import app

UNITS = ROOT / "systemd"
SERVICES = ("sidecar", "oversight", "ledger")
EVERY = (*SERVICES, "oversight-backup")
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
    "PrivateUsers": "yes", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes", "ProtectClock": "yes", "ProtectHostname": "yes", "ProtectProc": "invisible",
    "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes", "LockPersonality": "yes",
    "SystemCallArchitectures": "native", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "UMask": "0077", "LimitCORE": "0",
    "DevicePolicy": "closed", "RemoveIPC": "yes",
}  # fmt: skip


class Twice(dict):
    """A key that is given twice holds both, as systemd adds them up."""

    def __setitem__(self, key, value):
        if isinstance(value, list) and key in self:
            value = self[key] + value
        super().__setitem__(key, value)


def unit(name: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, dict_type=Twice, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str
    parser.read(UNITS / name)
    return {section: dict(parser[section]) for section in parser.sections()}


@pytest.mark.parametrize("name", EVERY)
def test_a_service_has_no_right_that_it_does_not_need(name):
    service = unit(f"customhouse-{name}.service")["Service"]
    assert {key: service.get(key) for key in HARDENED} == HARDENED
    assert service["User"] == service["Group"] == f"customhouse-{name.removesuffix('-backup')}"
    assert "~@privileged" in service["SystemCallFilter"]
    assert set(service["RestrictAddressFamilies"].split()) <= {"AF_INET", "AF_INET6", "AF_UNIX", "none"}
    assert service["MemoryMax"]


def test_each_service_is_a_user_of_its_own():
    users = re.findall(r"^u\s+(\S+)", (UNITS / "customhouse.sysusers").read_text(), re.MULTILINE)
    assert users == [f"customhouse-{name}" for name in SERVICES]
    for name in SERVICES:
        assert f"d     /etc/customhouse/{name}" in (UNITS / "customhouse.tmpfiles").read_text()
        assert unit(f"customhouse-{name}.service")["Service"]["StateDirectory"] == f"customhouse-{name}"


def test_a_backup_neither_reads_a_key_nor_talks_to_anybody():
    service = unit("customhouse-oversight-backup.service")["Service"]
    assert service["PrivateNetwork"] == "yes"
    assert service["RestrictAddressFamilies"] == "none"
    assert service["InaccessiblePaths"] == "-/etc/customhouse/oversight/keys"
    assert unit("customhouse-oversight-backup.timer")["Timer"]["Persistent"] == "yes"


def commands(group, path=()):
    if hasattr(group, "commands"):
        for name, one in group.commands.items():
            yield from commands(one, (*path, name))
    else:
        yield path, {option for one in group.params for option in one.opts}


@pytest.mark.parametrize("name", EVERY)
def test_the_command_is_one_that_exists(name):
    """Each word and option of ExecStart, against the program's own tree of commands."""
    program, *words = unit(f"customhouse-{name}.service")["Service"]["ExecStart"].split()
    assert program == "/opt/customhouse/bin/sidecar", "where docs/deploying.md installs it"
    known = dict(commands(typer.main.get_command(app)))
    path = next(path for path in sorted(known, key=len, reverse=True) if tuple(words[: len(path)]) == path)
    assert {word for word in words if word.startswith("--")} <= known[path]


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_started_again_unless_a_person_has_to_mend_it(name):
    sections = unit(f"customhouse-{name}.service")
    assert sections["Service"]["Restart"] == "always"
    assert sections["Service"]["RestartPreventExitStatus"] == "2", "exit code 2 is a setting"
    assert sections["Unit"]["StartLimitBurst"]
    assert int(sections["Service"]["TimeoutStopSec"]) >= 15, "calls have 10 s to end and records 3 s to be sent"


def test_the_sidecar_may_bound_the_opa_that_it_starts():
    """It sets RLIMIT_DATA on it (ADR 14), which a filter of @resources would forbid."""
    assert "@resources" not in unit("customhouse-sidecar.service")["Service"]["SystemCallFilter"]


def copies(folder: Path) -> list[Path]:
    """The units with a program that is there: systemd looks for it."""
    for one in UNITS.glob("customhouse-*.*"):
        text = one.read_text().replace("/opt/customhouse/bin/sidecar", "/bin/true")
        (folder / one.name).write_text(text)
    return sorted(folder.glob("customhouse-*.*"))


def test_systemd_finds_nothing_wrong(needs, tmp_path):
    ran = subprocess.run([needs("systemd-analyze", "apt-get install systemd"), "verify", *copies(tmp_path)],
                         capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    ours = [line for line in ran.stderr.splitlines() if "customhouse" in line]
    assert ours == []
    assert ran.returncode == 0


@pytest.mark.parametrize("name", EVERY)
def test_systemd_s_own_measure_of_exposure(needs, name):
    """0 is nothing, 10 everything; a unit without any of this has 9.2."""
    ran = subprocess.run([needs("systemd-analyze", "apt-get install systemd"), "security", "--offline=true", "--threshold=20",
                          UNITS / f"customhouse-{name}.service"], capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stdout.splitlines()[-1]


def test_users_and_folders_are_made(needs, tmp_path):
    (tmp_path / "etc").mkdir()
    for program, file, more in (
        ("systemd-sysusers", "customhouse.sysusers", ()),
        ("systemd-tmpfiles", "customhouse.tmpfiles", ("--create", "--dry-run")),
    ):
        path = needs(program, "apt-get install systemd")
        if (
            "--dry-run" in more
            and "--dry-run" not in subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
        ):
            more = ("--create",)
        ran = subprocess.run(
            [path, f"--root={tmp_path}", *more, UNITS / file], capture_output=True, text=True, timeout=60, check=False
        )
        assert "Unknown" not in ran.stderr, ran.stderr
        assert "Failed to parse" not in ran.stderr, ran.stderr
    assert "customhouse-ledger" in (tmp_path / "etc" / "passwd").read_text()
    assert (tmp_path / "etc" / "customhouse" / "oversight").is_dir()
