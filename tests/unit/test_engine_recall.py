"""An engine that has read much answers as one that reads its first document, and refuses what that one refuses."""

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import _native
from sidecar.decision.bundle import ENTRYPOINT
from sidecar.decision.folder import load_folder
from sidecar.decision.guard import generated_inputs, nullable_leaves
from sidecar.vocabulary import canonical

pytestmark = pytest.mark.unit

READS = """package t

p := {
	"whole": [x | x := input.whole],
	"deep": [x | x := input.part.deep],
	"part": [[x, y] | x := input.part.kept.value; y := input.part.list[1]],
	"plain": [x | x := input.plain],
}
"""
LONG = "x" * 60


def engine(*, interpreted: bool = False) -> _native.Engine:
    return _native.Engine([("t.rego", READS)], b"{}", "data.t.p", 5.0, interpreted=interpreted)


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def told(asked: _native.Engine, document: bytes) -> Any:
    """The answer; None where the document cannot be read."""
    try:
        return json.loads(asked.evaluate_json(document))
    except ValueError:
        return None


_LEAF = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "k", LONG, 'a"}{', "\\", "é\n"])
_VALUE = st.recursive(
    _LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["deep", "kept", "value", "list", "more"]), inner, max_size=4)
    ),
    max_leaves=10,
)
_DOCUMENT = st.dictionaries(st.sampled_from(["whole", "part", "plain", "unread", "x"]), _VALUE, max_size=5)
_WARM = engine()
"""Asked all of the documents that this file makes up, so that it remembers members of others."""


@settings(max_examples=400, deadline=None)
@given(st.lists(_DOCUMENT, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_members_read_before_stand_for_what_reading_them_gives(
    documents: list[dict[str, Any]], dice: random.Random
) -> None:
    mixed = {key: dice.choice(documents).get(key) for key in ("whole", "part", "unread", "plain")}
    for document in (*documents, mixed, *documents, mixed, *documents):
        written = compact(document)
        assert told(_WARM, written) == told(engine(interpreted=True), written), written


PART = '{"deep":{"more":"' + LONG + '","a":1},"kept":{"value":7},"list":[1,2]}'
GOOD = '{"version":1,"unread":{"a":"' + LONG + '"},"part":' + PART + ',"whole":{"k":"' + LONG + '"},"plain":"y"}'
BROKEN = [
    GOOD[:-1], GOOD + "}", GOOD + " x", GOOD + ",", GOOD.replace('},"whole"', '}},"whole"'), GOOD.replace(',"whole"', ',"part"'),
    GOOD.replace('"plain":"y"', f'"part":{PART}'), GOOD.replace('"plain":"y"', '"unread":{"a":1,"a":2}'),
    GOOD.replace('"a":1', '"a":1.5'), GOOD.replace('"a":1', '"more":1'), GOOD.replace('"list":[1,2]', '"list":[1,2,]'),
    GOOD.replace('"value":7', '"value":07'), GOOD.replace('"version":1', '"version":18446744073709551615'),
    GOOD.replace(LONG + '","a"', LONG + '\\ud800","a"'), GOOD.replace(LONG + '","a"', LONG + '\n","a"'),
    GOOD.replace('"plain":"y"', '"plain":' + "[" * 70 + "]" * 70), GOOD.replace('"plain":"y"', '"plain":' + '{"a":' * 70 + "1" + "}" * 70),
    GOOD.replace('"plain":"y"', '"plain":'), GOOD.replace('"plain":"y"', '"plain"'), GOOD.replace('"plain":"y"', ""), GOOD[1:],
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_what_cannot_be_read_cannot_be_read_between_known_members(broken: str) -> None:
    warm = engine()
    good = GOOD.encode()
    answers = [told(warm, good) for _ in range(4)]
    assert answers == [told(engine(interpreted=True), good)] * 4
    assert answers[0]["part"] == [[7, 2]]
    for _ in range(4):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is serde's
            warm.evaluate_json(broken.encode())
        with pytest.raises(ValueError) as first:  # noqa: PT011
            engine().evaluate_json(broken.encode())
        assert str(caught.value) == str(first.value)


def test_bytes_that_are_no_text_are_refused_in_what_was_known() -> None:
    warm, good = engine(), GOOD.encode()
    for _ in range(4):
        assert told(warm, good) is not None
    for place in (n for n in range(len(good)) if good[n : n + 1] == b"x"):
        assert told(warm, good[:place] + b"\xff" + good[place + 1 :]) is None


def test_one_byte_of_a_known_member_makes_another() -> None:
    warm, dice = engine(), random.Random(5)
    good = GOOD.encode()
    for _ in range(3):
        warm.evaluate_json(good)
    answers = set()
    for _ in range(1500):
        place = dice.randrange(len(good))
        changed = good[:place] + bytes([dice.choice(b'{}[]":,0123456789abx\\ \xc3')]) + good[place + 1 :]
        found = told(warm, changed)
        assert found == told(engine(interpreted=True), changed), changed
        assert told(warm, good) is not None
        answers.add(json.dumps(found))
    assert len(answers) > 20


def test_more_members_than_are_kept_and_asked_from_several_threads() -> None:
    warm, fresh = engine(), engine(interpreted=True)
    documents = [
        compact(
            {"part": {"kept": {"value": n, "more": LONG * 2}, "list": [n, -n]}, "whole": {"n": n % 7, "more": LONG}}
        )
        for n in range(1500)
    ]
    wanted = [told(fresh, one) for one in documents]
    wrong: list[bytes] = []

    def ask(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(3000):
            n = min(dice.randrange(1500), dice.randrange(1500))
            if told(warm, documents[n]) != wanted[n]:
                wrong.append(documents[n])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


def test_the_shipped_policies_answer_alike_whatever_was_asked_before() -> None:
    bundle = load_folder(Path("policies"))
    warm, interpreter = (
        _native.Engine(bundle.modules, bundle.data, ENTRYPOINT, 5.0, nullable_leaves(), interpreted=interpreted)
        for interpreted in (False, True)
    )
    documents = [canonical(one) for one in (*bundle.corpus, *generated_inputs(71, 150, bundle.corpus))]
    for document in documents:
        asked = [warm.evaluate_json(document) for _ in range(3)]
        assert asked == [interpreter.evaluate_json(document)] * 3
    for document in documents:
        fresh = interpreter.evaluate_json(document)
        assert warm.evaluate_json(document) == fresh
