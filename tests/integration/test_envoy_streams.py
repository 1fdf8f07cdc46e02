"""Streams through Envoy and ext_authz, and what callers are told when the sidecar behind it is dead."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deployment import Deployment, wait
from envoy_parts import enveloped
from minimal_policy import write_policy

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

Needs = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("deployed")) as deployment:
        yield deployment


def test_streams_pass_without_being_held_back_and_a_dead_sidecar_is_unavailable(
    deployed: Deployment, tmp_path: Path, needs: Needs
) -> None:
    users = [deployed.world.cast.us, deployed.world.cast.german]
    with enveloped(deployed, needs, "ext_authz", policy__bundle__folder=str(write_policy(tmp_path))) as free:
        caller = deployed.caller("console", "envoy")
        waiting = iter(users)
        said: list[int] = []

        def ask() -> Iterator[bytes]:
            for user in waiting:
                wait(lambda: len(said) == users.index(user), 60, "the answer before")
                yield pb.SyncRequest(user_id=user).SerializeToString()

        call = caller.open("Sync", ask(), deployed.metadata())
        for data in call:
            said.append(pb.SyncResponse.FromString(data).profile.user_id)
        assert said == users, "each question was put after the answer to the one before"
        listed = free.call("ListMessages", pb.ListMessagesRequest(user_id=users[0]))
        assert listed.said == "OK"
        assert deployed.recorded(listed.call_id).outcomes[0]["seen"] == "unobserved"
        before = len(deployed.upstream.seen)
        deployed.processes.kill("variant")
        for method, request in (("GetProfile", pb.GetProfileRequest(user_id=1)), ("Sync", pb.SyncRequest(user_id=1))):
            assert free.call(method, request).status == "UNAVAILABLE"
        assert len(deployed.upstream.seen) == before
