"""The streams of `test_guarded_streams`, through a sidecar inside Envoy."""

from collections.abc import Iterator

import pytest
from hosted_parts import HostedDeployment

pytest.register_assert_rewrite("integration.test_guarded_streams")

from integration.test_guarded_streams import (
    rechecking,
    test_a_caller_who_cancels_cancels_the_service_and_leaves_an_outcome,
    test_a_cancelled_upload_is_not_taken_for_a_whole_one,
    test_a_deadline_that_passes_reaches_the_service_and_the_record,
    test_a_half_closed_stream_still_gets_its_answers,
    test_a_listing_loses_the_messages_of_us_users,
    test_a_service_that_dies_in_a_stream_ends_it_with_a_recorded_outcome,
    test_a_stream_is_cut_when_its_person_becomes_ineligible,
    test_a_stream_is_cut_when_its_person_leaves_and_others_go_on,
    test_a_stream_of_pages_drops_us_records_from_each,
    test_a_stream_refused_half_way_releases_nothing_more,
    test_a_token_revoked_during_a_stream_ends_it,
    test_a_token_that_lapses_during_a_stream_ends_it,
    test_an_open_stream_is_decided_again_every_so_often,
    test_many_streams_at_once_do_not_mix,
    test_requests_and_answers_of_a_stream_interleave,
)

__all__ = [
    "deployed", "rechecking", "test_a_cancelled_upload_is_not_taken_for_a_whole_one",
    "test_a_caller_who_cancels_cancels_the_service_and_leaves_an_outcome",
    "test_a_deadline_that_passes_reaches_the_service_and_the_record", "test_a_half_closed_stream_still_gets_its_answers",
    "test_a_listing_loses_the_messages_of_us_users",
    "test_a_service_that_dies_in_a_stream_ends_it_with_a_recorded_outcome",
    "test_a_stream_is_cut_when_its_person_becomes_ineligible",
    "test_a_stream_is_cut_when_its_person_leaves_and_others_go_on", "test_a_stream_of_pages_drops_us_records_from_each",
    "test_a_stream_refused_half_way_releases_nothing_more", "test_a_token_revoked_during_a_stream_ends_it",
    "test_a_token_that_lapses_during_a_stream_ends_it", "test_an_open_stream_is_decided_again_every_so_often",
    "test_many_streams_at_once_do_not_mix", "test_requests_and_answers_of_a_stream_interleave",
]  # fmt: skip


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedDeployment]:
    with HostedDeployment(tmp_path_factory.mktemp("hosted")) as deployment:
        yield deployment
