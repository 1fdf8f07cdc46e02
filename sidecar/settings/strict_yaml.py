"""YAML without surprises: one reading of every value, and every mistake an error.

PyYAML reads YAML 1.1, where `NO` (the country) is false, `1:30` is ninety and the second of two equal keys silently
wins. Here plain words are text unless they are what YAML 1.2's core schema says: true, false, null, a number.
"""

import re

import yaml

_KEPT = {"tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"}
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18}|[0-9]{1,18}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?\Z")


class StrictYamlError(ValueError):
    """The text is not such YAML; says in which line."""


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice and a key that is no text."""


# The table is inherited by reference, so the class gets one of its own.
_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [one for one in resolvers if one[0] in _KEPT])
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(text: str) -> object:
    """What the text says. StrictYamlError, on one line, for anything else than one YAML document."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise StrictYamlError(f"{place}{' '.join((error.problem or error.context or 'not YAML').split())}") from None
    except yaml.YAMLError as error:
        raise StrictYamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise StrictYamlError("it is nested too deeply") from None
    except ValueError as error:
        # An explicit tag whose text is no such value: `!!int x`, `!!timestamp 2026-13-45`.
        raise StrictYamlError(f"a value is not of its tag: {' '.join(str(error).split())}") from None
