"""Why a request is refused: a code and a text, as AWS gives them."""


class Refused(Exception):
    """A request that the server answers with an error.

    Args:
        code: The service's error code, such as "ResourceNotFoundException".
        message: The service's text; empty where AWS sends none.
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
    """Return the refusal for a stream that is not in the state for the operation."""
    return Refused("ResourceInUseException", message)


def invalid(message: str) -> Refused:
    """Return the refusal for an argument that makes no sense."""
    return Refused("InvalidArgumentException", message)


def limit_exceeded(message: str) -> Refused:
    """Return the refusal for what would be too many."""
    return Refused("LimitExceededException", message)


def validation(message: str) -> Refused:
    """Return the refusal for arguments that do not go together."""
    return Refused("ValidationException", message)
