"""HTTP side of the local Kinesis: connections, limits, Host headers, certificate, and the ASGI application."""
