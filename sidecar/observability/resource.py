"""Who sends, in OpenTelemetry's words."""

from opentelemetry.sdk.resources import Resource


def named(service: str) -> Resource:
    """The process. Its name is OTEL_SERVICE_NAME's, else that of OTEL_RESOURCE_ATTRIBUTES, else `service`."""
    found = Resource.create()  # which reads both
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": service}))
    return found
