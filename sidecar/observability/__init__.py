"""What operators see: logs, metrics and traces. Never personal data: no person's or subject's id, no header value.

`logs` makes the operator's logger; `calls` follows one call through its stages; `metrics` counts calls and times
stages; `exposition` serves them to Prometheus and `otlp` sends the same; `traces` makes spans and continues a caller's
W3C trace. `catalogue` and `events` are the closed lists of metrics and of log events. Everything is passed in: nothing
here is global.
"""
