"""The command line: help for every command, exit codes, and one line instead of a traceback for every mistake."""

import json
import os
import socketserver
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from command_line import Shell
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from google.protobuf import descriptor_pb2
from settings_files import OVERSIGHT, SIDECAR

from sidecar.api.v1 import annotations_pb2
from sidecar.cli.app import app
from sidecar.cli.console import explained
from sidecar.demo import staff
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.tlog.key import VerifierKey

SETTINGS = {
    ("run",): "sidecar", ("check-config",): "sidecar", ("describe",): "sidecar", ("doctor",): "sidecar",
    ("status",): "sidecar", ("oversight", "run"): "oversight", ("oversight", "producer", "list"): "oversight",
    ("oversight", "producer", "revoke", "a"): "oversight",
}  # fmt: skip


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from commands(below, (*path, name))


class TestHelp:
    @pytest.mark.parametrize(
        "path", list(commands(typer.main.get_command(app))), ids=lambda path: " ".join(path) or "sidecar"
    )
    def test_every_command_has_it(self, shell: Shell, path: tuple[str, ...]) -> None:
        ran = shell(*path, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert " ".join(("sidecar", *path)) in ran.out
        assert "--help" in ran.out

    @pytest.mark.parametrize("path", [(), ("keys",), ("oversight",), ("oversight", "producer"), ("subjects",)])
    def test_a_group_alone_shows_what_it_has(self, shell: Shell, path: tuple[str, ...]) -> None:
        ran = shell(*path)
        assert ran.code == 2
        assert "Usage: " in ran.out + ran.err

    @pytest.mark.parametrize(
        "arguments",
        [("fly",), ("oversight", "fly"), ("run",), ("run", "--config"), ("keys", "new"), ("status", "--port", "1"),
         ("oversight", "verify"), ("oversight", "prove", "-1"), ("oversight", "prove", "one"), ("check-config", "x", "y")],
    )  # fmt: skip
    def test_bad_usage(self, shell: Shell, arguments: tuple[str, ...]) -> None:
        ran = shell(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "Error" in ran.err

    def test_neither_side_is_loaded_for_it(self) -> None:
        program = (
            "import sys; sys.argv = ['sidecar', '--help']\n"
            "from sidecar.cli.app import run\n"
            "try: run()\n"
            "except SystemExit: pass\n"
            "loaded = {name.split('.')[1] for name in sys.modules if name.startswith('sidecar.')}\n"
            "assert loaded <= {'cli', 'errors'}, loaded\n"
            "assert 'grpc' not in sys.modules"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr

    def test_as_a_module(self) -> None:
        ran = subprocess.run([sys.executable, "-m", "sidecar", "--help"], capture_output=True, text=True, check=False)
        assert ran.returncode == 0
        assert "oversight" in ran.stdout

    def test_which_release_this_is(self, shell: Shell) -> None:
        ran = shell("--version")
        assert (ran.code, ran.out) == (0, f"customhouse {version('customhouse')}\n")


class TestSettings:
    @pytest.fixture(params=list(SETTINGS), ids=" ".join)
    def command(self, request: pytest.FixtureRequest) -> tuple[str, ...]:
        path: tuple[str, ...] = request.param
        return path

    def test_a_missing_file(self, shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
        line = shell.refused(*command, "--config", tmp_path / "none.yaml")
        assert line.startswith(f"configuration: {tmp_path}/none.yaml: cannot be read: No such file")

    def test_a_folder(self, shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
        assert "cannot be read: Is a directory" in shell.refused(*command, "--config", tmp_path)

    def test_bad_yaml(self, shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text("a: 1\n\tb: 2\n")
        assert f"{file}: is not YAML: line 2" in shell.refused(*command, "--config", file)

    def test_a_wrong_key(self, shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
        file = tmp_path / "settings.yaml"
        text = SIDECAR if SETTINGS[command] == "sidecar" else OVERSIGHT
        file.write_text(f"{text}\nlimit: 3\n")
        assert "limit: unknown key" in shell.refused(*command, "--config", file)

    def test_the_other_program_s_file(self, shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text(OVERSIGHT if SETTINGS[command] == "sidecar" else SIDECAR)
        assert "unknown key" in shell.refused(*command, "--config", file)

    @pytest.mark.parametrize("command", [("check-config",), ("describe",)])
    def test_files_that_the_settings_name(self, shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
        file = tmp_path / "sidecar.yaml"
        file.write_text(SIDECAR)
        line = shell.refused(*command, "--config", file)
        assert line.startswith("configuration: ")
        assert str(tmp_path) in line


class TestEnds:
    """How an error ends any command."""

    @pytest.mark.parametrize(
        ("error", "code", "said"),
        [
            (ConfigurationError("is odd", where="a.yaml", value=3, fix="Mend it."), 2, "configuration: a.yaml: is odd (found 3). Mend it."),
            (ConfigurationError("two\nlines\x1b[31m"), 2, "configuration: two lines\N{REPLACEMENT CHARACTER}[31m"),
            (ConfigurationError("[red]no markup[/red] :smile:"), 2, "configuration: [red]no markup[/red] :smile:"),
            (IntegrityError("is torn", where="seg 3", fix="Restore it."), 1, "damaged: seg 3: is torn. Restore it."),
            (FileNotFoundError(2, "No such file", "x"), 2, "x: No such file"),
            (OSError("odd"), 2, "system: odd"),
            (KeyboardInterrupt(), 130, "interrupted"),
        ],
    )  # fmt: skip
    def test_each_has_its_code_and_one_line(
        self, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
    ) -> None:
        with pytest.raises(SystemExit) as end, explained():
            raise error
        assert end.value.code == code
        assert capsys.readouterr().err == f"{said}\n"

    def test_nobody_reads_any_more(self) -> None:
        program = f"{sys.executable} -m sidecar oversight --help | true; exit ${{PIPESTATUS[0]}}"
        ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
        assert ran.returncode in (0, 1)
        assert "Traceback" not in ran.stderr


class TestKeys:
    def test_a_pair(self, shell: Shell, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            ran = shell("keys", "new", tmp_path / "new" / "producer.pem", "--name", "store.example/log")
        finally:
            os.umask(before)
        file = tmp_path / "new" / "producer.pem"
        assert ran.code == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(f"{file}.pub").stat().st_mode) == 0o644
        private = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        assert load_pem_public_key(Path(f"{file}.pub").read_bytes()) == private.public_key()
        vkey = VerifierKey.parse(ran.out.split()[-1])
        assert (vkey.name, vkey.public_key) == ("store.example/log", private.public_key().public_bytes_raw())
        assert "PRIVATE" not in ran.out

    def test_a_sealing_pair(self, shell: Shell, tmp_path: Path) -> None:
        assert shell("keys", "new", tmp_path / "seal.pem", "--sealing").code == 0
        assert isinstance(load_pem_private_key((tmp_path / "seal.pem").read_bytes(), None), X25519PrivateKey)

    @pytest.mark.parametrize("there", ["producer.pem", "producer.pem.pub"])
    def test_nothing_is_overwritten(self, shell: Shell, tmp_path: Path, there: str) -> None:
        (tmp_path / there).write_text("mine")
        assert "a key is never overwritten" in shell.refused("keys", "new", tmp_path / "producer.pem")
        assert (tmp_path / there).read_text() == "mine"
        assert [one.name for one in tmp_path.iterdir()] == [there]

    def test_nor_written_through_a_link(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "producer.pem").symlink_to(tmp_path / "elsewhere")
        assert "never overwritten" in shell.refused("keys", "new", tmp_path / "producer.pem")
        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb", "\x1b[31m"])
    def test_a_name_that_no_key_can_have_leaves_no_file(self, shell: Shell, tmp_path: Path, name: str) -> None:
        assert "--name" in shell.refused("keys", "new", tmp_path / "producer.pem", "--name", name)
        assert list(tmp_path.iterdir()) == []

    def test_a_name_for_a_sealing_key(self, shell: Shell, tmp_path: Path) -> None:
        assert "no verifier" in shell.refused("keys", "new", tmp_path / "seal.pem", "--sealing", "--name", "x")

    @pytest.mark.parametrize("where", [".", "/", "below/a/file"])
    def test_where_no_file_can_be(self, shell: Shell, tmp_path: Path, where: str) -> None:
        (tmp_path / "below").write_text("a file")
        assert shell.refused("keys", "new", tmp_path / where)


class TestDescribe:
    @staticmethod
    def settings(folder: Path, *, overlay: dict[str, object] | None = None) -> Path:
        found = descriptor_pb2.FileDescriptorSet()
        for source in (descriptor_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, profiles_pb2.DESCRIPTOR):
            source.CopyToProto(found.file.add())
        (folder / "profiles.binpb").write_bytes(found.SerializeToString())
        tree = yaml.safe_load(SIDECAR)
        del tree["datasets"], tree["describe"]["overlay"]
        if overlay is not None:
            (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
            tree["describe"]["overlay"] = "overlay.yaml"
        file = folder / "sidecar.yaml"
        file.write_text(yaml.safe_dump(tree))
        return file

    def test_what_methods_reach(self, shell: Shell, tmp_path: Path) -> None:
        ran = shell("describe", "--json", "--config", self.settings(tmp_path))
        found = json.loads(ran.out)
        methods = {one["method"].rpartition("/")[2]: one for one in found["methods"]}
        assert methods["GetProfile"]["action"] == "read"
        assert "id_contact" in methods["GetProfile"]["categories"]
        assert ran.code == (1 if found["unannotated"] else 0)

    def test_for_people(self, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "240")
        file = self.settings(tmp_path)
        ran = shell("describe", "--config", file)
        as_json = json.loads(shell("describe", "--json", "--config", file).out)
        for one in as_json["methods"]:
            assert one["method"] in ran.out
        for line in as_json["unannotated"]:
            assert line in ran.out
        assert ran.code == (1 if as_json["unannotated"] else 0)

    def test_an_overlay_that_names_nothing_known(self, shell: Shell, tmp_path: Path) -> None:
        file = self.settings(
            tmp_path, overlay={"methods": {"a.B/C": {"action": "read", "resource": "x", "subject": "none"}}}
        )
        assert "overlay.yaml" in shell.refused("describe", "--config", file)

    def test_descriptors_that_are_none(self, shell: Shell, tmp_path: Path) -> None:
        file = self.settings(tmp_path)
        (tmp_path / "profiles.binpb").write_bytes(b"\xff\xff")
        assert "profiles.binpb" in shell.refused("describe", "--config", file)


class TestStatus:
    @pytest.fixture
    def answering(self, tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
        """Starts something that answers on the admin socket; gives the settings file."""
        servers = []

        def start(answer: bytes) -> Path:
            path = tmp_path / "admin"

            class Handler(socketserver.StreamRequestHandler):
                def handle(self) -> None:
                    assert self.rfile.readline() == b'["status"]\n'
                    self.wfile.write(answer)

            server = socketserver.UnixStreamServer(str(path), Handler)
            servers.append(server)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            return settings_with(tmp_path, {"socket": str(path)})

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()

    def test_a_well_one(self, shell: Shell, answering: Callable[[bytes], Path]) -> None:
        file = answering(b'{"producer": "a", "spool_records": 0, "listeners": ["0.0.0.0:1"], "problems": []}\n')
        ran = shell("status", "--config", file)
        assert ran.code == 0
        assert "spool records" in ran.out
        assert "0.0.0.0:1" in ran.out
        assert json.loads(shell("status", "--json", "--config", file).out)["spool_records"] == 0

    def test_one_with_a_problem(self, shell: Shell, answering: Callable[[bytes], Path]) -> None:
        file = answering(b'{"producer": "a", "problems": ["the store is away :warning: [red]x[/red] \\u001b[31m"]}\n')
        ran = shell("status", "--config", file)
        assert ran.code == 1
        assert ":warning: [red]x[/red] \N{REPLACEMENT CHARACTER}[31m" in ran.out
        assert shell("status", "--json", "--config", file).code == 1

    @pytest.mark.parametrize("answer", [b"", b"hello\n", b"[]\n", b"7", b"\xff", b"[" * 100_000])
    def test_what_is_no_sidecar(self, shell: Shell, answering: Callable[[bytes], Path], answer: bytes) -> None:
        assert "no sidecar answers: " in shell.refused("status", "--config", answering(answer))

    def test_nobody_there(self, shell: Shell, tmp_path: Path) -> None:
        line = shell.refused("status", "--config", settings_with(tmp_path, {"socket": "run/admin"}))
        assert f"{tmp_path}/run/admin: no sidecar answers" in line
        assert "Is it running" in line

    def test_no_socket_configured(self, shell: Shell, tmp_path: Path) -> None:
        assert "admin: no admin socket is configured" in shell.refused(
            "status", "--config", settings_with(tmp_path, None)
        )

    def test_a_path_too_long(self, shell: Shell, tmp_path: Path) -> None:
        assert "too long" in shell.refused("status", "--config", settings_with(tmp_path, {"socket": "x" * 120}))


def settings_with(folder: Path, admin: dict[str, str] | None) -> Path:
    tree = yaml.safe_load(SIDECAR)
    tree["admin"] = admin
    if admin is None:
        del tree["admin"]
    file = folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


class TestBuilders:
    def test_a_subject_index(self, shell: Shell, tmp_path: Path) -> None:
        source = tmp_path / "users.csv"
        source.write_text("id,country,as_of\n1,US,2026-11-01T00:00:00Z\n2,DE,2026-11-01T00:00:00Z\n")
        ran = shell("subjects", "build", source, tmp_path / "us.idx")
        assert ran.code == 0, ran
        assert (tmp_path / "us.idx").stat().st_size > 0

    def test_bad_rows(self, shell: Shell, tmp_path: Path) -> None:
        source = tmp_path / "users.csv"
        source.write_text("id,country,as_of\n1,Atlantis,2026-11-01T00:00:00Z\n")
        ran = shell("subjects", "build", source, tmp_path / "us.idx")
        assert ran.code == 1
        assert "1 bad rows; nothing was written" in ran.err
        assert not (tmp_path / "us.idx").exists()

    @pytest.mark.parametrize("what", [("subjects", 1), ("directory", 2)])
    def test_a_missing_source(self, shell: Shell, tmp_path: Path, what: tuple[str, int]) -> None:
        group, sources = what
        line = shell.refused(group, "build", *[tmp_path / "none"] * sources, tmp_path / "out")
        assert f"{tmp_path}/none: " in line
        assert "No such file" in line

    def test_a_directory(self, shell: Shell, tmp_path: Path) -> None:
        people, entities = staff.write(tmp_path, "2026-11-01T00:00:00Z")
        ran = shell("directory", "build", people, entities, tmp_path / "people.snapshot")
        assert ran.code == 0, ran
        people.write_text(people.read_text() + '{"id": 7}\n')
        ran = shell("directory", "build", people, entities, tmp_path / "other.snapshot")
        assert ran.code == 1
        assert not (tmp_path / "other.snapshot").exists()


class TestProducers:
    def test_add_list_revoke(self, shell: Shell, tmp_path: Path) -> None:
        file = tmp_path / "oversight.yaml"
        file.write_text(OVERSIGHT)
        shell("keys", "new", tmp_path / "producer.pem")
        add = ("oversight", "producer", "add", "profiles-1", "--key", tmp_path / "producer.pem.pub",
               "--identity", "spiffe://corp/sidecar", "--config", file)  # fmt: skip
        assert shell("oversight", "producer", "list", "--config", file).out == ""
        assert shell(*add).out == "profiles-1 may append, with spiffe://corp/sidecar\n"
        (line,) = shell("oversight", "producer", "list", "--json", "--config", file).out.splitlines()
        assert json.loads(line)["name"] == "profiles-1"
        assert not json.loads(line)["revoked"]
        assert "profiles-1" in shell.refused(*add)
        assert shell("oversight", "producer", "revoke", "profiles-1", "--config", file).code == 0
        assert "revoked" in shell("oversight", "producer", "list", "--config", file).out
        assert "nobody" in shell.refused("oversight", "producer", "revoke", "nobody", "--config", file)

    @pytest.mark.parametrize("key", ["none.pub", "text.pub", "producer.pem", "."])
    def test_what_is_no_public_key(self, shell: Shell, tmp_path: Path, key: str) -> None:
        file = tmp_path / "oversight.yaml"
        file.write_text(OVERSIGHT)
        (tmp_path / "text.pub").write_text("text")
        shell("keys", "new", tmp_path / "producer.pem")
        line = shell.refused(
            "oversight", "producer", "add", "a", "--key", tmp_path / key, "--identity", "x", "--config", file
        )
        assert str(tmp_path / key) in line
