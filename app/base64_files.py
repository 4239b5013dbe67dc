"""Files in base64, read by one rule wherever a request may carry them."""

from base64 import b64decode

_WHITESPACE = b" \t\n\r\f\v"  # many encoders break it into lines


def decoded(text: bytes) -> bytes:
    """The file of standard base64 with padding, or of a `data:` URL. Raises ValueError for what is neither."""
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    return b64decode(text.translate(None, _WHITESPACE), validate=True)
