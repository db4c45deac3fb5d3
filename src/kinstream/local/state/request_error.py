"""RequestError: the exception for a request that the service refuses, with the error code and message of AWS."""


class RequestError(Exception):
    """Error response to a request that the service refuses.

    Args:
        code: Error code, such as "ResourceNotFoundException".
        message: Error message. Empty if AWS sends no message.
        status: HTTP status.
    """

    def __init__(self, code: str, message: str = "", *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def not_found(message: str) -> RequestError:
    """Return the error for a stream or shard that does not exist."""
    return RequestError("ResourceNotFoundException", message)


def in_use(message: str) -> RequestError:
    """Return the error for a stream that is in the wrong status for the operation."""
    return RequestError("ResourceInUseException", message)


def invalid(message: str) -> RequestError:
    """Return the error for an invalid argument."""
    return RequestError("InvalidArgumentException", message)


def limit_exceeded(message: str) -> RequestError:
    """Return the error for a request that would exceed a limit."""
    return RequestError("LimitExceededException", message)


def validation(message: str) -> RequestError:
    """Return the error for arguments that cannot be combined."""
    return RequestError("ValidationException", message)
