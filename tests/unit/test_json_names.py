"""A JSON object names each member once, at any depth; otherwise it is refused by name."""

import json

import pytest

from sidecar.json_names import DoubledNameError, once

pytestmark = pytest.mark.unit


def test_an_object_whose_names_differ_is_read_as_it_is():
    assert json.loads('{"a":{"b":1,"c":[{"b":2}]},"b":3}', object_pairs_hook=once) == {
        "a": {"b": 1, "c": [{"b": 2}]},
        "b": 3,
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [('{"a":1,"a":1}', "a"), ('{"x":[{"b":1,"c":2,"b":3}]}', "b"), ('{"a":1,"\\u0061":2}', "a"), ('{"":1,"":2}', "")],
)
def test_a_name_that_stands_twice_is_refused_and_said(text, name):
    with pytest.raises(DoubledNameError) as caught:
        json.loads(text, object_pairs_hook=once)
    assert caught.value.name == name
