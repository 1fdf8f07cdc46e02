"""Customhouse: a policy-enforcement sidecar for personal data, and the independent store that oversees it.

The package holds two deployables that never load each other: the sidecar (`sidecar.main`) and the oversight
store (`sidecar.oversight`). ARCHITECTURE.md is the map; each sub-package's docstring is the map of that room.
"""
