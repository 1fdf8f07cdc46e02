"""What the AuthZEN door needs: its library and its types; and that a sidecar without the door loads neither."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from sidecar.errors import ConfigurationError
from sidecar.main import authzen


def test_without_its_library_the_door_is_refused_with_what_to_do(monkeypatch):
    authzen.require_library()
    monkeypatch.setitem(sys.modules, "h11", None)
    with pytest.raises(ConfigurationError, match=r"h11.*customhouse\[authzen\]"):
        authzen.require_library()


def test_without_types_nothing_could_be_asked_about():
    with pytest.raises(ConfigurationError, match="describe.resources") as caught:
        authzen.require_types(SimpleNamespace(describe=SimpleNamespace(resources=None)))
    assert "docs/authzen.md" in str(caught.value)
    authzen.require_types(SimpleNamespace(describe=SimpleNamespace(resources="resources.yaml")))


def test_a_sidecar_without_the_door_loads_no_http_library():
    code = "import sys, sidecar.main.doors, sidecar.main.authzen; print(sorted({'h11', 'sidecar.doors.https'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
