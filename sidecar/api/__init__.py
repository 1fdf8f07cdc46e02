"""Generated code: the wire of the store and the annotation options. `make generate` writes it."""
