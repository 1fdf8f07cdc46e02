"""The level `acknowledged`: nothing is forwarded before the decision is in a checkpoint that the store has published."""

from collections.abc import Iterator

import pytest
from deployment import Answer, Deployment, wait

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.oversight.reviewer import read_trust

GRANT = "EX-LEGAL"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """With Lena of the legal department, and an approval for her by two."""
    with Deployment(tmp_path_factory.mktemp("durable")) as deployment:
        deployment.people({"id": "lena", "roles": ["legal"]})
        deployment.world.tokens["lena"] = deployment.token("lena")
        deployment.grant(GRANT, person="lena")
        wait(lambda: ask(deployment).status == "OK", 60, "the sidecar has taken up the grant")
        yield deployment


def ask(deployment: Deployment, timeout: float = 30.0) -> Answer:
    """Lena reads a US user's government id for a legal process."""
    request = pb.GetProfileRequest(user_id=deployment.world.cast.us)
    return deployment.call("GetProfile", request, token="lena", purpose="legal_process", ticket="LEG-9",
                           exception=GRANT, timeout=timeout)  # fmt: skip


def published(deployment: Deployment) -> int:
    trust = read_trust(deployment.folder / "trust.txt")
    return trust.open_checkpoint((deployment.folder / "oversight" / "log" / "checkpoint").read_bytes()).checkpoint.size


def index_of(deployment: Deployment, call_id: str) -> int:
    leaves = [leaf for leaf, _ in deployment.records()]
    return next(i for i, leaf in enumerate(leaves) if leaf["call_id"] == call_id and leaf["type"] == "decision")


def test_the_record_is_in_a_published_checkpoint_before_the_service_is_asked(deployed: Deployment) -> None:
    sizes = []

    def noting(seen, requests, context):
        sizes.append(published(deployed))
        yield from deployed.upstream._as_usual(seen, requests, context)

    with deployed.upstream.behaving("GetProfile", noting):
        answer = ask(deployed)
    assert answer.status == "OK", answer.said
    assert pb.Profile.FromString(answer.messages[0]).government_id, "what the legal process is about was released"
    recorded = deployed.recorded(answer.call_id)
    assert [one["level"] for one in recorded.decisions] == ["acknowledged"]
    assert sizes[0] > index_of(deployed, answer.call_id)


def test_others_do_not_wait_for_checkpoints(deployed: Deployment) -> None:
    answer = deployed.call("GetProfile", pb.GetProfileRequest(user_id=deployed.world.cast.us))
    assert answer.status == "OK"
    assert [one["level"] for one in deployed.recorded(answer.call_id).decisions] == ["committed"]


def test_a_deadline_shorter_than_an_integration_is_refused_and_nothing_is_forwarded(deployed: Deployment) -> None:
    deployed.processes.kill("store")
    try:
        refusals = [ask(deployed, timeout=seconds) for seconds in (0.6, 2.0)]
        other = deployed.call("GetProfile", pb.GetProfileRequest(user_id=deployed.world.cast.us))
    finally:
        deployed.stage.start_store()
    assert other.status == "OK", "what only has to be committed goes on without the store"
    deployed.delivered()
    for answer in refusals:
        assert (answer.said, answer.retry) == ("UNAVAILABLE record_unavailable", True)
        assert not any(answer.messages)
        assert deployed.upstream.calls_of(answer.call_id) == []
        recorded = deployed.recorded(answer.call_id)
        assert recorded.status == "UNAVAILABLE"
        assert sum(part["records"] for part in recorded.outcomes[0]["released"].values()) == 0
    assert ask(deployed).status == "OK", "and with the store back it works again"
    assert deployed.audit().returncode == 0
