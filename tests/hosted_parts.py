"""Parts of tests of the sidecar inside Envoy: a deployment whose sidecars are hosted."""

import os
from pathlib import Path

import psutil
from deployment import Deployment

ENVOY = ("--host", "envoy")


class HostedDeployment(Deployment):
    """As `Deployment`; every sidecar of it runs inside an Envoy."""

    host = ENVOY

    def envoy(self, name: str = "sidecar") -> psutil.Process:
        """The Envoy of a running sidecar."""
        children = psutil.Process(self.processes.pid(name)).children()
        return next(one for one in children if Path(one.exe()).name == "envoy")

    def kill_envoy(self, name: str = "sidecar") -> None:
        """SIGKILL, to Envoy and the sidecar in it; whoever started it goes on."""
        os.kill(self.envoy(name).pid, 9)
