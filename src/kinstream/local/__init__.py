"""A local Kinesis server for tests and for development without AWS."""

from kinstream.extra import needs_local

with needs_local("kinstream.local"):
    from kinstream.local.control.interception import Call, Interception
    from kinstream.local.control.interceptor import Interceptor, SubscriptionInterceptor
    from kinstream.local.http.limits import Limits
    from kinstream.local.server import Server

__all__ = ["Call", "Interception", "Interceptor", "Limits", "Server", "SubscriptionInterceptor"]
