"""Parts of tests of the sidecar inside Envoy: a deployment whose sidecars are hosted."""

import os
from pathlib import Path

import psutil
from deployment import Deployment, wait

ENVOY = ("--host", "envoy")


class HostedDeployment(Deployment):
    """As `Deployment`; every sidecar of it runs inside an Envoy."""

    host = ENVOY

    def envoy(self, name: str = "sidecar") -> psutil.Process:
        """The Envoy that serves, of a running sidecar; beside it there may be a spare.

        It answers calls a moment before the supervisor has heard of it.
        """
        found: list[int] = []

        def serves() -> bool:
            workers = self.status(f"{name}.yaml")["workers"]
            found[:] = [one["pid"] for one in workers if one["state"] == "serving"]  # type: ignore[attr-defined]
            return bool(found)

        wait(serves, 60, "a worker serves")
        envoy = psutil.Process(found[0])
        assert Path(envoy.exe()).name == "envoy"
        assert envoy.ppid() == self.processes.pid(name)
        return envoy

    def kill_envoy(self, name: str = "sidecar") -> None:
        """SIGKILL, to Envoy and the sidecar in it; whoever started it goes on."""
        os.kill(self.envoy(name).pid, 9)
