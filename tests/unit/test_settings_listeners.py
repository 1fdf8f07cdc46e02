"""Who calls is known on every listener of a settings file, or the file is refused."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from settings_files import changed, refused, written

from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings


class TestListeners:
    """Who calls is known on every listener, or it is refused as the settings are read."""

    TLS: ClassVar = {"cert": "a.pem", "key": "a.key"}
    MUTUAL: ClassVar = {**TLS, "client_ca": "ca.pem"}

    @pytest.mark.parametrize(
        "listener",
        [
            {"address": "0.0.0.0:8443", "tls": MUTUAL},
            {"address": "0.0.0.0:8443", "tls": TLS},
            {"address": "unix:run/proxy", "workload": "spiffe://corp/ns/web"},
            {"address": "unix:run/proxy", "workload": "spiffe://corp/ns/web", "tls": TLS},
            {"address": "unix:run/proxy", "tls": MUTUAL},
            {"address": "127.0.0.1:8080", "plaintext": True},
            {"address": "[::1]:8080", "plaintext": True},
            {"address": "localhost:8080", "plaintext": True},
        ],
    )
    def test_these_are_accepted(self, tmp_path: Path, listener: dict[str, Any]) -> None:
        file = written(tmp_path, changed("listen", [{"door": "proxy", **listener}]))
        found = load(file, SidecarSettings, {}).listen[0]
        assert found.plaintext is listener.get("plaintext", False)

    @pytest.mark.parametrize(
        ("listener", "why"),
        [
            ({"address": "unix:run/proxy"}, "names its workload"),
            ({"address": "unix:run/proxy", "tls": TLS}, "tls with client_ca"),
            ({"address": "unix:run/proxy", "tls": MUTUAL, "workload": "spiffe://corp/ns/web"}, "each of them says"),
            ({"address": "unix:run/proxy", "workload": "spiffe://x/y", "plaintext": True}, "plaintext is for TCP"),
            ({"address": "127.0.0.1:8080"}, "a TCP listener carries tls"),
            ({"address": "0.0.0.0:8080", "plaintext": True}, "for a loopback address"),
            ({"address": "proxy.corp:8080", "plaintext": True}, "for a loopback address"),
            ({"address": "127.0.0.1:8080", "plaintext": True, "tls": TLS}, "without tls"),
            ({"address": "127.0.0.1:8080", "plaintext": True, "workload": "spiffe://x/y"}, "workload is for Unix"),
            ({"address": "127.0.0.1:8080", "plaintext": "yes"}, "valid boolean"),
        ],
    )
    def test_these_are_refused(self, tmp_path: Path, listener: dict[str, Any], why: str) -> None:
        assert why in refused(tmp_path, "listen", [{"door": "proxy", **listener}])
