"""Patterns, and tokens that carry them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from pgpubsub.web import Keys, create_app
from pgpubsub.web.access import NOBODY, Grant, Patterns
from pgpubsub.web.problems import Problem

NAMES = st.text(max_size=20).map("channels/".__add__)


@given(NAMES, NAMES)
def test_a_pattern_without_a_star_is_one_name(name: str, other: str) -> None:
    if "*" not in name:
        assert Patterns([name]).match(other) == (name == other)


@given(NAMES, st.text(max_size=10), NAMES)
def test_a_star_is_any_text(before: str, between: str, after: str) -> None:
    assert Patterns([f"{before}*{after}"]).match(before + between + after)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "streams/a", True),
        ("channels/*", "streams/a", False),
        ("channels/news.*", "channels/newsX1", False),
        ("channels/a", "channels/ab", False),
        ("channels/a*", "channels/a\nb", True),
        ("channels/[a]", "channels/a", False),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    assert Patterns([pattern]).match(name) == matches


def test_no_pattern_matches_nothing() -> None:
    assert not Patterns().match("channels/a")


@pytest.mark.parametrize("pattern", ["orders", "channel/orders", "", "/channels/a"])
def test_a_pattern_that_can_match_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="channels/NAME"):
        create_app("", public=[pattern])


# -- tokens

PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def jwk(algorithm: str, **others: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE[algorithm].public_key(), as_dict=True)
    return {**made, **others}


def claims(**others: Any) -> dict[str, Any]:
    return {"exp": time() + 3600, "sub": "me", "pgpubsub": {"read": ["channels/a"], "write": ["streams/*"]}, **others}


def file(directory: Path, content: bytes | str | dict[str, Any]) -> Path:
    path = directory / "key"
    text = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("algorithm", PRIVATE)
@pytest.mark.parametrize("how", ["pem", "jwks"])
def test_what_a_private_key_signed_is_verified_with_the_public_one(tmp_path: Path, algorithm: str, how: str) -> None:
    content = pem(PRIVATE[algorithm]) if how == "pem" else {"keys": [jwk(algorithm)]}
    keys = Keys(key=file(tmp_path, content))
    grant = keys.grant(jwt.encode(claims(), PRIVATE[algorithm], algorithm))
    assert (grant.subject, grant.read.given, grant.write.given) == ("me", ("channels/a",), ("streams/*",))
    grant.check("read", ["channels/a"])
    with pytest.raises(Problem, match="does not allow to read channels/b"):
        grant.check("read", ["channels/a", "channels/b"])
    with pytest.raises(Problem, match="does not allow to write channels/a"):
        grant.check("write", ["channels/a"])


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_what_a_secret_signed_is_verified_with_it(tmp_path: Path, algorithm: str) -> None:
    keys = Keys(secret=file(tmp_path, "s" * 64 + "\n"))
    assert keys.grant(jwt.encode(claims(), "s" * 64, algorithm)).subject == "me"


@pytest.mark.parametrize("algorithm", ["PS256", "RS512"])
def test_a_pem_key_is_good_for_all_algorithms_of_its_kind(tmp_path: Path, algorithm: str) -> None:
    keys = Keys(key=file(tmp_path, pem(PRIVATE["RS256"])))
    assert keys.grant(jwt.encode(claims(), PRIVATE["RS256"], algorithm)).subject == "me"


def test_a_public_key_does_not_pass_for_a_secret(tmp_path: Path) -> None:
    public = pem(PRIVATE["RS256"])
    encoded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, claims())
    ]
    signature = jwt.get_algorithm_by_name("HS256").sign(b".".join(encoded), public)
    forged = b".".join([*encoded, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    with pytest.raises(Problem, match="not valid"):
        Keys(key=file(tmp_path, public)).grant(forged)


@pytest.mark.parametrize(
    "forged",
    [
        jwt.encode(claims(), "", "none"),
        jwt.encode(claims(), PRIVATE["ES256"], "ES256"),
        jwt.encode(claims(), "s" * 64, "HS256"),
        jwt.encode(claims(), rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        jwt.encode(claims(nbf=time() + 36_000), PRIVATE["RS256"], "RS256"),
        jwt.encode({"sub": "me", "pgpubsub": {"read": ["*"]}}, PRIVATE["RS256"], "RS256"),
        jwt.encode(claims(pgpubsub=["*"]), PRIVATE["RS256"], "RS256"),
        jwt.encode(claims(pgpubsub={"read": "*"}), PRIVATE["RS256"], "RS256"),
        jwt.encode(claims(pgpubsub={"read": [1]}), PRIVATE["RS256"], "RS256"),
        jwt.encode(claims(pgpubsub={"read": ["orders"]}), PRIVATE["RS256"], "RS256"),
        "",
        "a.b.c",
        "\0",
        "ü.ü.ü",
        jwt.encode(claims(), PRIVATE["RS256"], "RS256")[:-6],
    ],
    ids=range(15),
)
def test_any_other_token_is_refused(tmp_path: Path, forged: str) -> None:
    with pytest.raises(Problem) as caught:
        Keys(key=file(tmp_path, pem(PRIVATE["RS256"]))).grant(forged)
    assert (caught.value.status, caught.value.code) == (401, "bad-token")


@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda text: base64.urlsafe_b64encode(text).decode()))
def test_whatever_passes_for_a_token_is_a_defined_error(rsa_keys: Keys, text: str) -> None:
    for token in (text, f"{text}.{text}.{text}", jwt.encode(claims(), "s" * 64, "HS256", headers={"kid": text})):
        with pytest.raises(Problem):
            rsa_keys.grant(token)


@pytest.fixture(scope="module")
def rsa_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(key=file(tmp_path_factory.mktemp("keys"), pem(PRIVATE["RS256"])))


def test_an_end_is_an_end(rsa_keys: Keys) -> None:
    with pytest.raises(Problem, match="expired") as caught:
        rsa_keys.grant(jwt.encode(claims(exp=time() - 1), PRIVATE["RS256"], "RS256"))
    assert caught.value.code == "expired"


def test_a_token_without_patterns_allows_nothing(rsa_keys: Keys) -> None:
    grant = rsa_keys.grant(jwt.encode({"exp": time() + 60}, PRIVATE["RS256"], "RS256"))
    with pytest.raises(Problem) as caught:
        grant.check("read", ["channels/a"])
    assert caught.value.status == 403


def test_without_a_token_nothing_is_allowed_and_it_is_said_what_is_missing() -> None:
    with pytest.raises(Problem, match="Authorization: Bearer") as caught:
        NOBODY.check("read", ["channels/a"])
    assert caught.value.status == 401
    Grant(read=Patterns(["*"])).check("read", ["channels/a"])


def test_the_audience_and_the_issuer_have_to_be_those_that_are_wanted(tmp_path: Path) -> None:
    keys = Keys(secret=file(tmp_path, "s" * 64), audience="gateway", issuer="shop")
    assert keys.grant(jwt.encode(claims(aud="gateway", iss="shop"), "s" * 64, "HS256"))
    for others in ({}, {"aud": "other", "iss": "shop"}, {"aud": "gateway", "iss": "other"}, {"iss": "shop"}):
        with pytest.raises(Problem):
            keys.grant(jwt.encode(claims(**others), "s" * 64, "HS256"))


def test_a_kid_chooses_among_keys_and_keys_can_be_replaced(tmp_path: Path) -> None:
    path = file(tmp_path, {"keys": [jwk("RS256", kid="old")]})
    keys = Keys(key=path)
    new = jwt.encode(claims(), PRIVATE["ES256"], "ES256", headers={"kid": "new"})
    with pytest.raises(Problem):
        keys.grant(new)
    file(tmp_path, {"keys": [jwk("RS256", kid="old"), jwk("ES256", kid="new")]})
    os.utime(path, ns=(1, 1))
    assert keys.grant(new).subject == "me"
    assert keys.grant(jwt.encode(claims(), PRIVATE["RS256"], "RS256")).subject == "me"
    path.write_text("{")
    os.utime(path, ns=(2, 2))
    assert keys.grant(new).subject == "me", "what is half written does no harm"


K1: dict[str, Any] = jwt.get_algorithm_by_name("ES256K").to_jwk(
    ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True
)


@pytest.mark.parametrize(
    "odd",
    [jwk("RS256", alg="RSA-OAEP"), {**jwk("RS256"), "alg": ["RS256"]}, {**jwk("RS256"), "alg": {}}, K1],
    ids=["to encrypt with", "a list of algorithms", "no text", "an unknown curve"],
)
def test_a_key_that_we_cannot_use_does_not_keep_the_others_from_being_used(tmp_path: Path, odd: dict[str, Any]) -> None:
    keys = Keys(key=file(tmp_path, {"keys": [odd, jwk("ES256")]}))
    assert keys.grant(jwt.encode(claims(), PRIVATE["ES256"], "ES256")).subject == "me"
    with pytest.raises(ValueError, match="no public key"):
        Keys(key=file(tmp_path, {"keys": [odd]}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no public key"),
        ("{}", "no public key"),
        ('{"keys": []}', "no public key"),
        ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', "no public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        ('{"keys":' + "[" * 100_000, "nested too deeply"),
        (
            PRIVATE["RS256"].private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "private key",
        ),
    ],
    ids=range(7),
)
def test_a_file_without_a_key_is_an_error(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Keys(key=file(tmp_path, content))


def test_a_short_secret_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 5 bytes and needs 32"):
        Keys(secret=file(tmp_path, "short\n"))
    with pytest.raises(ValueError, match="either a key"):
        Keys()
