"""Messages, tokens and frames that are nearly right: no crash, no wrong permit. `python -m tests.campaigns fuzz` goes on."""

from pathlib import Path

import pytest
from campaigns import mutations
from campaigns.guarded import Guarded

SEED = 20_441


async def test_mutated_messages_are_refused_in_good_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = await mutations.messages(Guarded(tmp_path), seed=SEED, number=3000)
    with capsys.disabled():
        print(f"\n{found}")
    assert found.wrong == []
    assert len(found.tried) == 8


def test_mutated_tokens_name_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = mutations.tokens(Guarded(tmp_path), seed=SEED, number=5000)
    with capsys.disabled():
        print(f"\n{found}")
    assert found.wrong == []
    assert found.tried.total() > 4000
