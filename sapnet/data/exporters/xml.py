"""Text that XML can hold."""

import re

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Characters that XML 1.0 has no way to write become "?"."""
    return _NO_XML.sub("?", text)
