"""The programs of `test_clients`, unmodified, before a sidecar inside Envoy."""

from collections.abc import Iterator

import pytest
from hosted_parts import HostedDeployment

pytest.register_assert_rewrite("integration.test_clients")

from integration.test_clients import (
    grpcurl,
    test_ghz_under_load_every_call_is_answered_and_recorded_once,
    test_grpcurl_lists_and_describes_the_service_through_the_sidecar,
    test_grpcurl_reads_a_profile,
    test_grpcurl_shows_a_readable_refusal,
    test_grpcurl_streams,
    test_reflection_is_for_identified_callers,
)

__all__ = [
    "deployed", "grpcurl", "test_ghz_under_load_every_call_is_answered_and_recorded_once",
    "test_grpcurl_lists_and_describes_the_service_through_the_sidecar", "test_grpcurl_reads_a_profile",
    "test_grpcurl_shows_a_readable_refusal", "test_grpcurl_streams", "test_reflection_is_for_identified_callers",
]  # fmt: skip


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedDeployment]:
    with HostedDeployment(tmp_path_factory.mktemp("clients")) as deployment:
        yield deployment
