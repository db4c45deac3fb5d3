"""Text from elsewhere, made fit for a terminal: what could move the cursor or lie about the text is escaped."""


def printable(text: str) -> str:
    """Return `text` with every character that does not print as itself, such as ESC, written as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
