"""What a policy author reads in a terminal of a hundred columns: nothing is cut off without a word, ids are in one piece."""

import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from recorded import body, permitted, question, row, write_rows

COLUMNS = 100
POLICIES = Path(__file__).resolve().parents[2] / "policies"
CALL = "01a20651-e62e-732a-b094-d3fd62a8b2d0"


def in_a_terminal(*arguments: object) -> list[str]:
    """The lines that a command shows there."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, COLUMNS, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-m", "sidecar", *map(str, arguments)], stdout=theirs, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL, env={**environment, "TERM": "xterm"},
    ) as running:  # fmt: skip
        os.close(theirs)
        came = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            came += part
        assert running.wait(60) in (0, 1)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m|\r", "", came.decode()).splitlines()


def words(text: str) -> list[str]:
    return re.sub("[│└├─]", " ", text).split()


def test_an_explanation_shows_conditions_as_a_whole(shell, tmp_path: Path) -> None:
    shutil.copytree(POLICIES, tmp_path / "policies")
    question = {"subject": {"kind": "workload", "workload": {"id": "spiffe://a/b", "operated_from": "SG", "may": ["read"]}},
                "action": {"name": "read", "service": "a.b.C", "method": "Get"}, "resource": {"categories": ["id_contact"], "classes": ["protected"],
                "subjects": {"us": 1}}}  # fmt: skip
    (tmp_path / "call.json").write_text(json.dumps(question))
    lines = in_a_terminal("policy", "explain", tmp_path / "policies", "--input", tmp_path / "call.json")
    trees = [line for line in lines if line.startswith(("└", "├", "│", "    "))]
    assert 80 < max(map(len, trees)) <= COLUMNS, "the terminal itself has nothing to fold"
    piped = shell("policy", "explain", tmp_path / "policies", "--input", tmp_path / "call.json").out
    assert max(map(len, piped.splitlines())) > COLUMNS, "there is something to fold"
    assert words(" ".join(lines)) == words(piped)


def test_a_call_id_can_be_copied(tmp_path: Path) -> None:
    bundle = tmp_path / "candidate"
    shutil.copytree(POLICIES, bundle)
    recorded = json.loads(body(question("bob", us_personnel=False), permitted(), 1)) | {"call_id": CALL}
    records = write_rows(tmp_path / "records.jsonl", row(json.dumps(recorded).encode(), 1))
    lines = in_a_terminal("policy", "replay", "--against", bundle, "--from", records)
    assert any(CALL in line for line in lines), lines
