"""The store starts only when everything it needs is there, and loads nothing of the sidecar's side."""

import subprocess
import sys

import pytest
import yaml
from store_rig import PROGRAM, StoreProcess

pytestmark = pytest.mark.unit


def test_it_loads_nothing_of_the_sidecars_side():
    program = (
        "import sys, sidecar.oversight.main\nprint(*(name for name in sys.modules if name.startswith('sidecar.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    allowed = ("oversight", "record", "tlog", "observability", "settings", "api", "vocabulary", "errors")
    assert "sidecar.oversight.sqlite" in loaded
    assert [name for name in loaded if name.split(".")[1] not in allowed] == []


def start(store, **changes):
    """Run it with other settings; return what it says when it refuses."""
    settings = yaml.safe_load(store.settings.read_text())
    for path, value in changes.items():
        section, _, key = path.partition("__")
        settings[section][key] = value
    store.settings.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-c", PROGRAM, str(store.settings)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode != 0
    return ended.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"log__key": "seal.pem"}, "is not an Ed25519 private key"),
        ({"secrets__sealing_key": "log.pem"}, "is not an X25519 private key"),
        ({"secrets__key_encryption_key": "log.pem"}, "A key-encryption key is a file of 32 random bytes"),
        ({"storage__sqlite": "nowhere/log.sqlite"}, "Create the folder"),
        ({"listen__tls": {"cert": "tls.pem", "key": "tls.key"}}, "certificates"),
        ({"listen__tls": {"cert": "gone.pem", "key": "tls.key", "client_ca": "ca.pem"}}, "cannot be read"),
        ({"listen__append": "203.0.113.1:1"}, "cannot listen there"),
    ],
)
def test_what_is_missing_is_named(tmp_path, changes, says):
    assert says in start(StoreProcess(tmp_path), **changes)
