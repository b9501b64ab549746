"""What clients send to the gateway: query strings, frames, bodies, tokens; and what its operator gives it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlencode

import jwt
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection, Request

from pgpubsub.errors import PubSubError
from pgpubsub.web.access import Keys, Patterns, _public_keys, check_patterns
from pgpubsub.web.asking import LONGEST_TOKEN, asked, bearer
from pgpubsub.web.origins import Origins, check_origins
from pgpubsub.web.problems import Problem, of
from pgpubsub.web.sending import body_of, check_headers
from pgpubsub.web.sockets import _check, _parsed, _payload, _ref, _topic
from tests.fuzz.fuzzing import any_json, any_text, bounded, fuzzed, json_text, mutated
from tests.fuzz.test_core import tokens as positions
from tests.web.described import validator

REFUSED = (Problem, PubSubError, ValueError)
"""What the endpoints make an answer of, by `problems.of`."""


def check_answer(error: Exception) -> None:
    """A client is told of `error` as the manual says, in words that can be sent."""
    problem = of(error)
    assert 400 <= problem.status < 500, f"{error!r} is told as {problem.status}"
    assert len(problem.response().body) < 20_000


def connection(query: str, headers: Mapping[str, str], path: Mapping[str, str] | None = None) -> HTTPConnection:
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    scope = {"type": "http", "query_string": query.encode(errors="replace"), "headers": raw, "path_params": path or {}}
    return HTTPConnection(scope)


# -- requests

names = any_text | st.sampled_from(["orders", "pgpubsub.beats", "x" * 64, "a.b"])
marks = st.lists(st.sampled_from(["t1763900000000", "t", "t99999999999999", "", "end"]) | positions, max_size=4).map(
    ".".join
)
parameters = st.lists(
    st.tuples(st.sampled_from(["channel", "stream", "after", "format", "other"]), names | positions | st.just("json")),
    max_size=6,
)
encoded_parameters = parameters.map(lambda pairs: urlencode(pairs, errors="replace"))
queries = encoded_parameters | any_text | mutated(encoded_parameters)


@given(queries, marks, st.none() | st.tuples(st.sampled_from(["channel", "stream"]), names))
@fuzzed
def test_a_request_asks_for_something_or_is_refused(query: str, mark: str, path: tuple[str, str] | None) -> None:
    with bounded(len(query) + len(mark) + (1 << 20)):
        try:
            wanted = asked(connection(query, {"last-event-id": mark}, dict([path]) if path else None))
        except REFUSED as error:
            check_answer(error)
            return
    assert wanted.topics
    assert len(wanted.topics) == len(wanted.afters)
    for topic in wanted.topics:
        topic.path.encode()


@given(st.text(max_size=40) | st.sampled_from(["Bearer ", "bearer x y", "Bearer " + "x" * LONGEST_TOKEN]))
@fuzzed
def test_a_header_has_a_token_or_is_refused(header: str) -> None:
    try:
        found = bearer(connection("", {"authorization": header}))
    except Problem as problem:
        assert problem.status == 401
    else:
        assert found
        assert found == found.strip()


@given(st.lists(st.binary(max_size=40), max_size=6), st.text(max_size=12), any_text, st.integers(0, 100))
@fuzzed
def test_a_body_is_a_payload_or_is_refused(parts: list[bytes], length: str, kind: str, limit: int) -> None:
    rest = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages = iter([*rest, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    headers = {"content-length": length, "content-type": kind}
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    request = Request({"type": "http", "headers": raw, "method": "POST"}, receive)
    try:
        payload = asyncio.run(body_of(request, limit))
    except REFUSED as error:
        check_answer(error)
    else:
        assert (payload if isinstance(payload, bytes) else payload.encode()) == b"".join(parts)
        assert len(b"".join(parts)) <= limit


@given(st.none() | json_text)
@fuzzed
def test_headers_are_an_object_or_are_refused(given_headers: str | None) -> None:
    with bounded(len(given_headers or "")):
        try:
            headers = check_headers(given_headers)
        except Problem as problem:
            check_answer(problem)
        else:
            assert headers is None or isinstance(headers, dict)


# -- frames

requests = st.fixed_dictionaries(
    {"type": st.sampled_from(["authenticate", "subscribe", "unsubscribe", "publish"])},
    optional={
        "ref": st.none() | any_text | st.integers() | st.floats(),
        "token": any_text,
        "channel": names,
        "stream": names,
        "after": positions,
        "payload": any_text,
        "base64": any_text | st.binary().map(lambda data: base64.b64encode(data).decode()),
        "key": st.none() | any_text,
        "headers": st.none() | st.dictionaries(any_text, any_json, max_size=2),
        "idempotency_key": st.none() | any_text,
        "other": any_json,
    },
)
twisted = st.tuples(requests, any_text, any_json).map(lambda given: {**given[0], given[1]: given[2]})


@given(json_text | requests.map(json.dumps) | twisted.map(json.dumps) | mutated(requests.map(json.dumps)) | st.binary())
@fuzzed
@example('{"type": "publish", "channel": "a", "ref": ' + "9" * 5000 + "}")
@example('{"type": "publish", "channel": "a", "payload": "\\ud800"}')
def test_a_frame_is_a_request_as_described_or_is_refused(text: str | bytes) -> None:
    with bounded(len(text)):
        try:
            request = _parsed(text)
            whole = dict(request)
            ref = _ref(request)
            _check(request)
            if request["type"] == "authenticate":
                if "token" not in request:
                    return
            else:
                _topic(request)
                _payload(request)
        except REFUSED as error:
            check_answer(error)
            return
    json.dumps(ref, allow_nan=False).encode()
    validator(whole["type"]).validate(whole)


@given(requests)
@fuzzed
def test_a_request_as_described_is_understood(request: dict[str, Any]) -> None:
    """What is refused all the same is what a schema cannot say: long references, names of too many bytes, no base64."""
    if not validator(request["type"]).is_valid(request):
        return
    rest = _parsed(json.dumps(request))
    try:
        _ref(rest)
    except Problem:
        assert request["ref"] is not None
    _check(rest)


# -- tokens

FILE = Path(__file__).with_name("secret")
SECRET = FILE.read_bytes()
KEYS = Keys(secret=FILE)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: str, claims: str) -> str:
    """A token whose signature is right, whatever is in it."""
    content = f"{encoded(header.encode(errors='replace'))}.{encoded(claims.encode(errors='replace'))}"
    return f"{content}.{encoded(hmac.new(SECRET, content.encode(), hashlib.sha256).digest())}"


claims = st.fixed_dictionaries(
    {"exp": st.sampled_from([10**11, 1, -1, 1e300, "10", None, True, [1]]) | any_json},
    optional={
        "pgpubsub": st.fixed_dictionaries(
            {}, optional={"read": st.lists(any_text | st.just("channels/*")) | any_json, "write": any_json}
        )
        | any_json,
        "sub": any_json,
        "nbf": any_json,
        "iat": any_json,
        "aud": any_json,
    },
)
token_headers = st.sampled_from(
    ['{"alg":"HS256"}', '{"alg":"none"}', '{"alg":"RS256"}', '{"alg":"HS256","crit":["x"]}']
)
signatures = st.builds(signed, token_headers | json_text, claims.map(json.dumps) | json_text)


@given(signatures)
@fuzzed
def test_a_token_that_we_have_signed_grants_what_it_says_or_is_refused(token: str) -> None:
    with bounded(len(token)):
        try:
            grant = KEYS.grant(token)
        except Problem as problem:
            assert problem.status == 401
            check_answer(problem)
            return
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header["alg"] == "HS256"
    assert grant.expires is not None
    assert grant.expires > time() - 1
    check_patterns((*grant.read.given, *grant.write.given))


VALID = jwt.encode({"exp": 10**11, "pgpubsub": {"read": ["channels/a"]}}, SECRET, "HS256")
UNSIGNED = jwt.encode({"exp": 10**11}, "", "none")


@given(mutated(st.sampled_from([VALID, UNSIGNED])) | any_text | mutated(signatures))
@fuzzed
def test_a_token_that_we_have_not_signed_grants_nothing(token: str) -> None:
    try:
        grant = KEYS.grant(token)
    except Problem as problem:
        assert problem.status == 401
        check_answer(problem)
    else:
        content, _, signature = token.strip().rpartition(".")
        right = hmac.new(SECRET, content.encode(), hashlib.sha256).digest()
        assert base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)) == right
        assert grant.expires is not None


key_fields = {
    "kty": st.sampled_from(["RSA", "EC", "OKP", "oct"]) | any_json,
    "crv": st.sampled_from(["P-256", "Ed25519", "X25519", "secp256k1"]) | any_json,
    "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none"]) | any_json,
    "use": st.sampled_from(["sig", "enc"]),
    "kid": any_json,
    "n": st.sampled_from(["AQAB", ""]) | any_json,
    "e": st.sampled_from(["AQAB", "AA"]) | any_json,
    "x": st.sampled_from(["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "AA"]) | any_json,
    "y": st.sampled_from(["AA"]) | any_json,
    "d": st.sampled_from(["AA"]) | any_json,
}
key_sets = st.lists(st.fixed_dictionaries({}, optional=key_fields) | any_json, max_size=3).map(
    lambda keys: json.dumps({"keys": keys})
)
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@given(key_sets | mutated(key_sets) | json_text | any_text.map(lambda text: f"-----BEGIN PUBLIC KEY-----\n{text}"))
@fuzzed
@example(json.dumps({"keys": [{**ED25519, "alg": ["EdDSA"]}]}))
@example('{"keys":' + "[" * 100_000)
def test_a_file_has_public_keys_or_is_refused(content: str) -> None:
    with bounded(len(content)):
        try:
            found = _public_keys(content.encode(errors="replace"))
        except ValueError as error:
            assert str(error)
            return
    for key in found:
        assert not any(name.startswith("HS") or name == "none" for name in key.algorithms), "anybody could sign"


# -- patterns and origins

patterns = st.text("*ab/.", max_size=20).map(lambda text: f"channels/{text}") | any_text


@given(st.lists(patterns, max_size=4), st.text("ab/.*", max_size=30).map(lambda text: f"channels/{text}") | any_text)
@fuzzed
def test_a_pattern_matches_what_its_pieces_say_or_is_refused(some: list[str], name: str) -> None:
    try:
        checked = check_patterns(some)
    except ValueError:
        return
    assert Patterns(checked).match(name) is any(_matches(pattern, name) for pattern in checked)


def _matches(pattern: str, name: str) -> bool:
    """What a pattern means, in the plainest way: what is reached in it by each letter of the name."""
    reached = {0}
    for letter in [*name, None]:
        for place in sorted(reached):
            while place < len(pattern) and pattern[place] == "*":
                place += 1
                reached.add(place)
        if letter is None:
            return len(pattern) in reached
        reached = {place + 1 for place in reached if pattern[place : place + 1] == letter} | {
            place for place in reached if pattern[place : place + 1] == "*"
        }
    raise AssertionError


origins = (
    mutated(st.sampled_from(["https://example.com", "http://localhost:8008", "http://[::1]:80", "null"])) | any_text
)


@given(origins, any_text | origins)
@fuzzed
def test_an_origin_is_allowed_or_not(origin: str, host: str) -> None:
    try:
        allowed = check_origins([origin])
    except ValueError:
        allowed = ()
    its = Origins(lambda scope, receive, send: asyncio.sleep(0), allowed)
    assert isinstance(its._is_allowed(origin, host), bool)
    assert not allowed or its._is_allowed(origin, host)
