"""PEP, the other ways in: doors that hand calls to the same enforcement point as the gRPC proxy.

Which obligations each can fulfil: `enforcement.declarations`. Each door is an edge: only here are grpc, ASGI and the
protocols of Envoy and AuthZEN seen; none decides anything itself.
"""
