"""Who may use a served device: a token that both sides know and that never goes over the wire.

The server sends a challenge; the client answers with an HMAC-SHA256 of it under the token and sends a challenge of
its own, so that each side proves that it knows the token. It is no encryption: on a network that others can listen
to, use TLS, or a tunnel, besides.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from morphnic.errors import EnvironmentFault, InputError

TOKEN_VARIABLE = "MORPHNIC_TOKEN"
FILE_VARIABLE = "MORPHNIC_TOKEN_FILE"
LEAST_BYTES = 16
_MAKE_ONE = "make one with `openssl rand -hex 32`"


class AccessRefused(InputError):
    """The other side did not prove that it may talk to us; the message says what to check."""


def challenge() -> str:
    """A new random challenge."""
    return secrets.token_hex(16)


def proof(token: bytes, role: str, server: str, client: str) -> str:
    """What the side `role` ("client" or "server") answers, given the challenges of both sides."""
    return hmac.new(token, f"morphnic {role} {server} {client}".encode(), "sha256").hexdigest()


def proves(token: bytes, role: str, server: str, client: str, given: object) -> bool:
    """Whether `given` is that proof, compared in constant time."""
    return hmac.compare_digest(proof(token, role, server, client).encode(), str(given).encode())


def find_token(path: Path | None = None, environment: Mapping[str, str] | None = None) -> bytes | None:
    """The token in the file `path`, else in MORPHNIC_TOKEN, else in the file that MORPHNIC_TOKEN_FILE names.

    None where there is none. Raises `EnvironmentFault` for a file that others may read, `InputError` for a token
    that can be guessed.
    """
    variables = os.environ if environment is None else environment
    if path is None and variables.get(TOKEN_VARIABLE):
        return _checked(variables[TOKEN_VARIABLE], TOKEN_VARIABLE)
    if path is None and variables.get(FILE_VARIABLE):
        path = Path(variables[FILE_VARIABLE])
    if path is None:
        return None
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"the token file {path} cannot be read ({reason}): {_MAKE_ONE}") from error
    if mode & 0o077:
        raise EnvironmentFault(f"others may read the token file {path} (mode {mode:04o}): `chmod 600 {path}`")
    return _checked(text, str(path))


def _checked(text: str, source: str) -> bytes:
    token = text.strip().encode()
    if len(token) < LEAST_BYTES:
        raise InputError(f"the token in {source} must have at least {LEAST_BYTES} characters, not {len(token)}: "
                         f"{_MAKE_ONE}")
    return token
