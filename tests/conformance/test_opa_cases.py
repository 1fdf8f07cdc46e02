"""OPA's own conformance cases: what loads in the embedded engine agrees, or fails; none is answered wrongly."""

import os
from pathlib import Path

import opa_cases
import pytest
from opa_cases import Results


@pytest.fixture(scope="module")
def results() -> Results:
    found = opa_cases.folder()
    if isinstance(found, Path):
        return opa_cases.run(found)
    if os.environ.get("CI") == "true":
        pytest.fail(found)
    pytest.skip(found)


def test_no_case_is_answered_wrongly(results: Results):
    assert results.wrong == []


def test_the_cases_are_all_there_and_some_hundred_load(results: Results):
    assert sum(results.total(verdict) for verdict in opa_cases.VERDICTS) == 2_400
    assert results.total(opa_cases.AGREE) > 250
    assert results.total(opa_cases.CLOSED) < 20


def test_the_committed_table_says_so(results: Results):
    fix = "run `python -m tests.engine_tables --write cases`, and look at what changed"
    assert opa_cases.FILE.read_text() == opa_cases.table(results), fix


def test_an_answer_other_than_opas_is_found():
    """The judge itself: a case whose wanted result is not what either engine says."""
    case = {"note": "n", "query": "data.t.p = x", "modules": ["package t\n\np := 1\n"]}
    assert opa_cases.judge({**case, "want_result": [{"x": 1}]})[0] == opa_cases.AGREE
    assert opa_cases.judge({**case, "want_result": [{"x": 2}]})[0] == opa_cases.WRONG
    assert opa_cases.judge({**case, "want_result": []})[0] == opa_cases.WRONG
    assert opa_cases.judge({**case, "want_error": "e"})[0] == opa_cases.WRONG
