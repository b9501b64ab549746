"""Who may read and write what: patterns, and JSON Web Tokens that carry them (RFC 7519).

What a request is about is named as its URL names it: `channels/orders`, `streams/orders`. A pattern is such a name in
which `*` stands for any text. Nobody may anything unless a token, or `--public` for reading, says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pgpubsub.logs import EventLog
from pgpubsub.web.problems import Problem

logger = EventLog("gateway")

__all__ = ["NOBODY", "Grant", "Keys", "Patterns", "check_patterns"]

SHORTEST_SECRET = 32
"""Bytes: what HS256 wants (RFC 7518, section 3.2)."""

LEEWAY = 10.0
"""Seconds by which clocks may differ when a token is new (`nbf`, `iat`). Its end is its end."""

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
HMAC = ("HS256", "HS384", "HS512")
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns that begin as names do.

    Raises:
        ValueError: one can match nothing.

    >>> check_patterns(["channels/news.*", "*"])
    ('channels/news.*', '*')
    """
    checked = tuple(patterns)
    for pattern in checked:
        if not pattern.startswith(("channels/", "streams/", "*")):
            raise ValueError(
                f"{pattern!r} matches nothing: a pattern is channels/NAME or streams/NAME, with * for any text in it"
            )
    return checked


class Patterns:
    """Names that are allowed.

    >>> news = Patterns(["channels/news.*"])
    >>> news.match("channels/news.sport"), news.match("streams/news.sport")
    (True, False)
    """

    __slots__ = ("_pieces", "given")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.given = tuple(patterns)
        self._pieces = [pattern.split("*") for pattern in self.given]

    def match(self, name: str) -> bool:
        """Whether `name` is one of them."""
        return any(_matches(pieces, name) for pieces in self._pieces)

    def __bool__(self) -> bool:
        return bool(self.given)


def _matches(pieces: Sequence[str], name: str) -> bool:
    """Whether `name` is the pieces of a pattern with any text between them. A search each, without going back."""
    first, *middle, last = pieces if len(pieces) > 1 else (pieces[0], None)
    if last is None:
        return name == first
    place, end = len(first), len(name) - len(last)
    if place > end or not name.startswith(first) or not name.endswith(last):
        return False
    for piece in middle:
        place = name.find(piece, place, end)
        if place < 0:
            return False
        place += len(piece)
    return True


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may."""

    read: Patterns = field(default_factory=Patterns)
    write: Patterns = field(default_factory=Patterns)
    subject: str | None = None
    """Who it is, if a token says so."""
    expires: float | None = None
    """When it ends, in seconds since 1970."""

    def check(self, doing: str, names: Iterable[str]) -> None:
        """Make sure that all of `names` may be read, or written.

        Raises:
            Problem: 401 without a token, 403 with one that does not say so.
        """
        patterns = self.read if doing == "read" else self.write
        for name in names:
            if patterns.match(name):
                continue
            if self.expires is None:
                raise Problem(401, "unauthorized", f"to {doing} {name} takes a token: Authorization: Bearer ...")
            raise Problem(403, "forbidden", f"the token does not allow to {doing} {name}")


NOBODY = Grant()


class _UnknownKey(ValueError):
    pass


class _Key(NamedTuple):
    key: Any
    algorithms: Sequence[str]
    id: str | None = None


class Keys:
    """What tokens are verified with. Files are read again when they have changed, so that keys can be replaced.

    Args:
        key: a file with a public key (PEM), or with several (JWKS, RFC 7517).
        secret: a file with a secret of at least 32 bytes, for HS256 and its like. A line break at its end does not
            count.
        audience, issuer: what a token's `aud` and `iss` have to be, if they are to be anything.

    Raises:
        ValueError: both or neither of the files are given, or there is no key in them.
        OSError: they cannot be read.
    """

    def __init__(
        self,
        *,
        key: str | Path | None = None,
        secret: str | Path | None = None,
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        if (key is None) == (secret is None):
            raise ValueError("tokens are verified with either a key (--jwt-key) or a secret (--jwt-secret-file)")
        self._path = Path(key or secret or "")
        self._parse: Callable[[bytes], Sequence[_Key]] = _public_keys if key is not None else _secret
        self._audience = audience
        self._issuer = issuer
        self._read_at = -1
        self._keys: Sequence[_Key] = ()
        self._told = ""
        self._refresh()

    def grant(self, token: str) -> Grant:
        """What `token` allows.

        Raises:
            Problem: 401, it is not valid, or not any more; with why.
        """
        try:
            header = jwt.get_unverified_header(token)
            claims = self._claims(token, header)
            return _grant(claims)
        except jwt.ExpiredSignatureError:
            raise Problem(401, "expired", "the token has expired: get a new one") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Problem(401, "bad-token", f"the token is not valid: {error}") from None

    def _claims(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._refresh()
            self._told = ""
        except (OSError, ValueError) as trouble:  # in the midst of being replaced: the keys we have are good
            if str(trouble) != self._told:
                self._told = str(trouble)
                logger.warning(
                    "keys_unreadable", "the keys stay as they were, since they cannot be read: %(error)s", error=trouble
                )
        error: Exception = jwt.InvalidKeyError("no key of ours is named as its kid says")
        for key in self._keys:
            if header.get("kid") is not None and key.id is not None and header["kid"] != key.id:
                continue
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=list(key.algorithms),
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=LEEWAY,
                    options={"require": ["exp"], "verify_aud": self._audience is not None},
                )
                break
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError) as refused:
                error = refused
        else:
            raise error
        if claims["exp"] <= time():
            raise jwt.ExpiredSignatureError
        return claims

    def _refresh(self) -> None:
        changed_at = self._path.stat().st_mtime_ns
        if changed_at != self._read_at:
            try:
                self._keys = self._parse(self._path.read_bytes())
            except ValueError as error:
                raise ValueError(f"{self._path}: {error}") from error
            self._read_at = changed_at


def _grant(claims: Mapping[str, Any]) -> Grant:
    ours = claims.get("pgpubsub", {})
    if not isinstance(ours, Mapping):
        raise TypeError('its claim "pgpubsub" is no object')
    read, write = (_listed(ours, what) for what in ("read", "write"))
    subject = claims.get("sub")
    return Grant(Patterns(read), Patterns(write), None if subject is None else str(subject), float(claims["exp"]))


def _listed(ours: Mapping[str, Any], what: str) -> tuple[str, ...]:
    patterns = ours.get(what, [])
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise TypeError(f'its claim "pgpubsub" has no list of patterns in "{what}"')
    return check_patterns(patterns)


def _secret(content: bytes) -> Sequence[_Key]:
    secret = content.rstrip(b"\r\n")
    if secret.lstrip().startswith((b"-----BEGIN", b"{")):
        raise ValueError("this is a key, and no secret: it is to be given as --jwt-key")
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"the secret has {len(secret)} bytes and needs {SHORTEST_SECRET}: head -c48 /dev/urandom | base64 makes one"
        )
    return [_Key(secret, HMAC)]


def _public_keys(content: bytes) -> Sequence[_Key]:
    if not content.lstrip().startswith(b"{"):
        return [_key(_from_pem(content))]
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError("this JSON is nested too deeply to be a JWKS") from None
    listed = found.get("keys", [found])
    keys = []
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.get("kty") in ("RSA", "EC", "OKP") and one.get("use", "sig") == "sig":
            try:
                key = _key(jwt.PyJWK({name: value for name, value in one.items() if name != "alg"}).key, one.get("kid"))
            except (jwt.PyJWTError, _UnknownKey):
                continue  # those that nobody knows are to be ignored (RFC 7517, section 5)
            named = one.get("alg")
            algorithms = [known for known in key.algorithms if named in (None, known)]
            if algorithms:  # else it is to encrypt with
                keys.append(key._replace(algorithms=algorithms))
    if not keys:
        raise ValueError('there is no public key in this JSON: it is to be a JWKS, {"keys": [...]}')
    return keys


def _from_pem(content: bytes) -> Any:
    if b"PRIVATE KEY" in content:
        raise ValueError("this is a private key: the gateway only verifies, and is to have the public one")
    try:
        return load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "there is no public key in this file: it is to be PEM (BEGIN PUBLIC KEY) or a JWKS (JSON)"
        ) from None


def _key(key: Any, id: str | None = None) -> _Key:
    """A public key, which is good for algorithms of its own kind only."""
    if hasattr(key, "private_bytes"):
        raise ValueError("this is a private key: the gateway only verifies, and is to have the public one")
    if isinstance(key, RSAPublicKey):
        return _Key(key, RSA, id)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES:
        return _Key(key, (CURVES[key.curve.name],), id)
    if isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return _Key(key, ("EdDSA",), id)
    raise _UnknownKey("this sort of key is not known: RSA, P-256, P-384, P-521, Ed25519 and Ed448 are")
