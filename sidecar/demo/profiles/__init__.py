"""Generated code of the demo's data service."""
