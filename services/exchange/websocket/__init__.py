"""The exchange over WebSocket: JSON over `/ws`, with the feeds and calls of the gRPC contracts behind it.

The process is a client of the public edge, as any other: it has no books and no accounts of its own. `service/` alone knows
the contracts; everything else handles JSON objects and `updates.Update`.
"""
