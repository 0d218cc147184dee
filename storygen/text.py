"""Text that every encoding can hold. Knows the standard library only."""


def whole_characters(text: str) -> str:
    """text with each lone surrogate, which no encoding can hold, as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
