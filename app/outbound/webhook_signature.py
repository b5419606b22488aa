"""Signatures of webhooks, by the Standard Webhooks convention (standardwebhooks.com), version 1.

A message has three headers: `webhook-id`, the same for each try of one event; `webhook-timestamp`,
seconds since 1970 of this try; `webhook-signature`, "v1," and the base64 of an HMAC-SHA256 over
id, timestamp and body, joined by full stops. The receiver refuses old timestamps, and has seen an
id before where an event comes twice.
"""

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64
HOW_TO_MAKE_ONE = 'make one: echo "whsec_$(openssl rand -base64 32)"'


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: `whsec_` and 24 to 64 bytes in base64.

    Raises ValueError, which does not hold the secret.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(
            f"should be {PREFIX!r} and {LEAST_BYTES} to {MOST_BYTES} bytes in base64; "
            + HOW_TO_MAKE_ONE
        )
    return key


def headers(secret: str | None, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The message's headers; without a secret it is not signed."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secret is not None:
        signed = b".".join([message_id.encode(), str(timestamp).encode(), body])
        digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
    return headers
