"""Escaping of untrusted text for terminals: control characters could move the cursor or disguise the text."""


def printable(text: str) -> str:
    """Return `text` with each non-printable character, such as ESC, replaced by an escape sequence."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
