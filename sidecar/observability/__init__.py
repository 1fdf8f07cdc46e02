"""What operators see: logs, metrics and traces. Never personal data: no person's or subject's id, no header value.

`logs` makes the operator's logger; `calls` follows one call through its stages; `metrics` counts calls and times
stages, served to Prometheus and sent by OTLP; `traces` makes spans and continues a caller's W3C trace. Everything is
passed in: nothing here is global.
"""
