"""One OPA server for all comparisons; each test leaves nothing behind that another would read."""

from collections.abc import Iterator

import pytest
from conftest import Needs
from reference_opa import ReferenceOpa, running


@pytest.fixture(scope="session")
def opa(needs: Needs) -> Iterator[ReferenceOpa]:
    """OPA, empty but for what earlier tests stored under names of their own."""
    with running(needs("opa", "run `make tools`")) as server:
        yield server
