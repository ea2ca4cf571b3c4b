"""A hub that introduces peers, one that nobody knows at a time."""

import base64
import os
import time
import uuid

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME = "hub"


def _text(key):
    raw = key.public_key().public_bytes_raw()
    return "ed25519:" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Hub:
    """Its key is made from a seed of 32 bytes, which another process may need too."""

    def __init__(self, seed=None):
        self.seed = seed or os.urandom(32)
        self.key = Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public_key(self):
        return _text(self.key)

    def introduction(self, audience):
        """A token that says of a new peer what a gateway wants to know."""
        now, name = int(time.time()), uuid.uuid4().hex
        claims = {
            "iss": NAME,
            "aud": audience,
            "iat": now,
            "exp": now + 300,
            "jti": name,
            "peer_id": f"stk_{name}",
            "base_url": f"https://{name}.example",
            "public_key": _text(Ed25519PrivateKey.generate()),
            "domain": "default",
        }
        return jwt.encode(claims, self.key, algorithm="EdDSA")
