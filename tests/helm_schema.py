"""The values.schema.json of the charts, made from the settings models: what a chart puts into a settings file is checked
against the same keys as the program's own loader, before anything is installed.

The model says more than a schema can (two keys that exclude each other, a file that must exist); that the loader says.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings
from sidecar.settings.values import Settings
from tests.helm_values import OVERSIGHT, SIDECAR

Schema = dict[str, Any]

_HOST_PORT = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?):[0-9]{1,5}"
SPELLED: Mapping[str, Schema] = {
    "_duration": {"pattern": r"^[0-9]{1,12}(\.[0-9]{1,6})?(ms|s|m|h|d)$", "description": "a duration such as 50ms, 10s, 24h"},
    "_size": {"pattern": "^[0-9]{1,15}(B|KiB|MiB|GiB)$", "description": "a size such as 4MiB"},
    "_path": {"minLength": 1, "description": "a path, relative to /etc/customhouse"},
    "_host_port": {"pattern": f"^{_HOST_PORT}$", "description": "host:port"},
    "_address": {"pattern": f"^(unix:.+|{_HOST_PORT})$", "description": "host:port or unix:PATH"},
}  # fmt: skip
"""Validator of `sidecar.settings.values` -> how what it reads is spelled in YAML."""
_BOUNDS = ("gt", "ge", "lt", "le", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format")


class _AsWritten(GenerateJsonSchema):
    """The schema of what stands in the file, where pydantic's own is of what the program makes of it."""

    def function_before_schema(self, schema: Any) -> Schema:
        name = getattr(schema["function"]["function"], "__name__", "")
        if name in SPELLED:
            return {"type": "string", **SPELLED[name]}
        return super().function_before_schema(schema)

    def nullable_schema(self, schema: Any) -> Schema:
        """A key that is not wanted is left out; in values, null means that already."""
        return self.generate_inner(schema["schema"])


def of_settings(model: type[Settings], prefix: str) -> tuple[Schema, dict[str, Schema]]:
    """The schema of a settings file, and the definitions it refers to, their names with the prefix."""
    made = model.model_json_schema(
        schema_generator=_AsWritten, ref_template=f"#/$defs/{prefix}.{{model}}", mode="validation"
    )
    below = {f"{prefix}.{name}": _tidied(one) for name, one in made.pop("$defs", {}).items()}
    return _tidied(made), below


def _tidied(schema: Any) -> Any:
    """Without what says nothing to a reader of an error: titles, and the model's own defaults and bounds of seconds."""
    if isinstance(schema, list):
        return [_tidied(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    drop = {"default"} | ({"title"} if isinstance(schema.get("title"), str) else set())
    if schema.get("type") == "string":
        drop |= {*_BOUNDS}
    kept = {key: value for key, value in schema.items() if key not in drop}
    if isinstance(kept.get("description"), str):
        kept["description"] = kept["description"].partition("\n\n")[0].replace("\n", " ")
    return {
        key: {name: _tidied(one) for name, one in value.items()} if key == "properties" else _tidied(value)
        for key, value in kept.items()
    }


def sidecar() -> Schema:
    """values.schema.json of helm/sidecar. Which settings file is asked for depends on the mode."""
    config, defs = of_settings(SidecarSettings, "sidecar")
    ledger, more = of_settings(LedgerSettings, "ledger")
    schema = _root(SIDECAR, {**defs, **more, "sidecar.yaml": config, "ledger.yaml": ledger})
    is_ledger = {"properties": {"mode": {"const": "ledger"}}, "required": ["mode"]}
    schema["if"] = is_ledger
    schema["then"] = {"properties": {"ledger": {"properties": {"config": {"$ref": "#/$defs/ledger.yaml"}}}}}
    schema["else"] = {"properties": {"config": {"$ref": "#/$defs/sidecar.yaml"}}}
    return schema


def oversight() -> Schema:
    """values.schema.json of helm/oversight."""
    config, defs = of_settings(OversightSettings, "oversight")
    schema = _root(OVERSIGHT, {**defs, "oversight.yaml": config})
    schema["properties"]["config"] = {"$ref": "#/$defs/oversight.yaml"}
    return schema


def _root(values: Schema, definitions: dict[str, Schema]) -> Schema:
    """`global` is what Helm adds to the values of a chart that another one depends on."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **values,
        "properties": {**values["properties"], "global": {"type": "object"}},
        "$defs": dict(sorted(definitions.items())),
    }


def expected() -> dict[str, str]:
    """Path below the root -> what the file should hold."""
    return {
        f"helm/{name}/values.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in (("sidecar", sidecar()), ("oversight", oversight()))
    }
