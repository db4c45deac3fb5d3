"""The exception for refused requests, with the error code and message of AWS."""


class Refused(Exception):
    """A request is refused with an error response.

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


def not_found(message: str) -> Refused:
    """Return the refusal for a stream or shard that does not exist."""
    return Refused("ResourceNotFoundException", message)


def in_use(message: str) -> Refused:
    """Return the refusal for a stream that is in the wrong status for the operation."""
    return Refused("ResourceInUseException", message)


def invalid(message: str) -> Refused:
    """Return the refusal for an invalid argument."""
    return Refused("InvalidArgumentException", message)


def limit_exceeded(message: str) -> Refused:
    """Return the refusal for a request that would exceed a limit."""
    return Refused("LimitExceededException", message)


def validation(message: str) -> Refused:
    """Return the refusal for arguments that cannot be combined."""
    return Refused("ValidationException", message)
