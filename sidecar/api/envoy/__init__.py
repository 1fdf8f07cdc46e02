"""Generated code: what is used of Envoy's authorization and processing services."""
