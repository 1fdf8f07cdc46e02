"""Policy enforcement point (PEP): the way of a call.

`pipeline` is the enforcement point and its ports; `call` the shapes a door hands it; `intercept` the gRPC door;
`upstream` the way to the guarded service; `obligations` what is done to answers; `recorder` makes decisions durable;
`reflection` fetches descriptors; `admin` answers `sidecar status` on a local socket.
"""
