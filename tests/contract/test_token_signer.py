"""What every token signer owes its callers, and the forgeries that the real one must see through."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.security.clock import SystemClock
from adapters.security.key_ring import KeyRing
from adapters.security.token_signer import JwtTokenSigner
from application.ports.token_signer import TokenSigner
from domain.errors import InvalidField, TokenInvalid
from domain.identity import Caller, Role, Session
from tests.fakes.token_signer import FakeTokenSigner

CALLER = Caller(workspace_id=uuid4(), user_id=uuid4(), session_id=uuid4(), role=Role.ADMIN)


def a_session(generation: int = 3) -> Session:
    now = datetime.now(UTC)
    return Session(
        session_id=uuid4(),
        workspace_id=uuid4(),
        user_id=uuid4(),
        salt=b"s" * 32,
        generation=generation,
        rotate_time=now,
        expire_time=now + timedelta(days=30),
    )


def a_token(signer: TokenSigner, *, age: timedelta = timedelta(0), lifetime: timedelta = timedelta(minutes=10)) -> str:
    issued = datetime.now(UTC) - age
    return signer.access_token(CALLER, issued, issued + lifetime)


def altered(token: str, at: int) -> str:
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


class TokenSignerContract:
    def test_an_access_token_names_its_caller(self, signer: TokenSigner) -> None:
        assert signer.verify_access_token(a_token(signer))[0] == CALLER

    def test_an_access_token_tells_when_it_expires_in_whole_seconds(self, signer: TokenSigner) -> None:
        now = datetime.now(UTC)
        token = signer.access_token(CALLER, now, now + timedelta(minutes=10))
        assert signer.verify_access_token(token)[1] == (now + timedelta(minutes=10)).replace(microsecond=0)

    def test_two_access_tokens_differ(self, signer: TokenSigner) -> None:
        assert a_token(signer) != a_token(signer)

    def test_an_expired_access_token_is_refused(self, signer: TokenSigner) -> None:
        with pytest.raises(TokenInvalid):
            signer.verify_access_token(a_token(signer, age=timedelta(minutes=10)))

    def test_an_access_token_of_another_deployment_is_refused(self, signer: TokenSigner, other: TokenSigner) -> None:
        with pytest.raises(TokenInvalid):
            signer.verify_access_token(a_token(other))

    def test_a_refresh_token_is_no_access_token(self, signer: TokenSigner) -> None:
        with pytest.raises(TokenInvalid):
            signer.verify_access_token(signer.refresh_token(a_session()))

    def test_a_refresh_token_is_the_same_each_time(self, signer: TokenSigner) -> None:
        session = a_session()
        assert signer.refresh_token(session) == signer.refresh_token(session)

    def test_a_refresh_token_states_its_session_and_generation(self, signer: TokenSigner) -> None:
        session = a_session(generation=42)
        assert signer.refresh_session(signer.refresh_token(session)) == (session.session_id, 42)

    def test_a_refresh_token_proves_its_session(self, signer: TokenSigner) -> None:
        session = a_session()
        assert signer.proves(signer.refresh_token(session), session)

    def test_a_spent_refresh_token_still_proves_its_session(self, signer: TokenSigner) -> None:
        session = a_session(generation=3)
        assert signer.proves(signer.refresh_token(session), replace(session, generation=9))

    def test_a_refresh_token_says_nothing_of_another_session(self, signer: TokenSigner) -> None:
        assert not signer.proves(signer.refresh_token(a_session()), a_session())

    def test_a_refresh_token_depends_on_the_salt(self, signer: TokenSigner) -> None:
        session = a_session()
        assert not signer.proves(signer.refresh_token(session), replace(session, salt=b"t" * 32))

    def test_a_stranger_s_refresh_token_proves_nothing(self, signer: TokenSigner, other: TokenSigner) -> None:
        session = a_session()
        assert not signer.proves(other.refresh_token(session), session)

    def test_a_refresh_token_does_not_prove_another_generation(self, signer: TokenSigner) -> None:
        session = a_session(generation=3)
        stolen = signer.refresh_token(session).replace(".3.", ".4.")
        assert not signer.proves(stolen, replace(session, generation=4))

    @pytest.mark.parametrize("at", [-1, -2, -20])
    def test_an_altered_proof_proves_nothing(self, signer: TokenSigner, at: int) -> None:
        session = a_session()
        token = signer.refresh_token(session)
        assert not signer.proves(altered(token, len(token) + at), session)

    @pytest.mark.parametrize("garbage", ["", ".", "..", "a.b.c", f"{uuid4()}", f"{uuid4()}.x.y", "\0", "\ud800.1.x"])
    def test_what_is_no_refresh_token_states_nothing(self, signer: TokenSigner, garbage: str) -> None:
        assert signer.refresh_session(garbage) is None

    def test_a_page_token_carries_its_keyset(self, signer: TokenSigner) -> None:
        keyset = ["2026-03-04T05:06:07.891000+00:00", str(uuid4()), "caf\u00e9"]
        assert signer.keyset("list 1", signer.page_token("list 1", keyset)) == keyset

    def test_a_page_token_of_another_list_is_refused(self, signer: TokenSigner) -> None:
        with pytest.raises(InvalidField, match="page_token"):
            signer.keyset("list 2", signer.page_token("list 1", ["k"]))

    def test_a_page_token_of_another_deployment_is_refused(self, signer: TokenSigner, other: TokenSigner) -> None:
        with pytest.raises(InvalidField):
            signer.keyset("list 1", other.page_token("list 1", ["k"]))

    @pytest.mark.parametrize("at", [0, 5, -5])
    def test_an_altered_page_token_is_refused(self, signer: TokenSigner, at: int) -> None:
        token = signer.page_token("list 1", ["k"])
        with pytest.raises(InvalidField):
            signer.keyset("list 1", altered(token, at % len(token)))

    @pytest.mark.parametrize(
        "garbage", ["", ".", "x", "\0", "\ud800", "caf\u00e9", "WyJrIl0.", "WyJrIl0", "x" * 1_000_000]
    )
    def test_what_is_no_page_token_is_refused(self, signer: TokenSigner, garbage: str) -> None:
        with pytest.raises(InvalidField):
            signer.keyset("list 1", garbage)


class TestFakeTokenSigner(TokenSignerContract):
    @pytest.fixture
    def signer(self) -> TokenSigner:
        return FakeTokenSigner(SystemClock())

    @pytest.fixture
    def other(self) -> TokenSigner:
        return FakeTokenSigner(SystemClock())


def a_key_ring(seed: bytes = b"1") -> KeyRing:
    signing = Ed25519PrivateKey.from_private_bytes(seed * 32)
    return KeyRing(signing=signing, password_pepper=seed * 32, refresh=seed * 32, cursor=seed * 32)


KEYS = a_key_ring()
STRANGER = Ed25519PrivateKey.from_private_bytes(b"9" * 32)
PUBLIC = KEYS.signing.public_key()
PUBLIC_PEM = PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    """What an honest token says, with changes; None takes a claim away."""
    now = int(datetime.now(UTC).timestamp())
    honest = {
        "iss": "chatback",
        "aud": "chatback",
        "sub": str(CALLER.user_id),
        "sid": str(CALLER.session_id),
        "wid": str(CALLER.workspace_id),
        "role": "MEMBER",
        "jti": "1",
        "iat": now,
        "nbf": now,
        "exp": now + 600,
    }
    return {name: value for name, value in {**honest, **changes}.items() if value is not None}


def forged(
    payload: dict[str, Any] | None = None, key: Any = KEYS.signing, algorithm: str = "EdDSA", **header: Any
) -> str:
    """A token signed by our own key unless said otherwise, so that only what is changed can be its fault."""
    named = {"typ": "at+jwt", "kid": KEYS.kid, **header}
    return jwt.encode(payload or claims(), key, algorithm, headers=named)


def unsigned_part(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def by_hand(header: dict[str, Any], signature: bytes | None = None) -> str:
    """A token whose header no library would write, signed by our own key."""
    text = f"{unsigned_part(header)}.{unsigned_part(claims())}"
    signed = KEYS.signing.sign(text.encode()) if signature is None else signature
    return f"{text}.{urlsafe_b64encode(signed).rstrip(b'=').decode()}"


def swapped_payload() -> str:
    header, _, signature = forged().split(".")
    return f"{header}.{unsigned_part(claims(role='OPERATOR'))}.{signature}"


def respelled(token: str) -> str:
    """The same bytes in another spelling: the last character of a signature has four bits to spare."""
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = token[:-1] + last[last.index(token[-1]) + 1]
    parts = [urlsafe_b64decode(each.split(".")[2] + "==") for each in (token, spelled)]
    assert parts[0] == parts[1]
    return spelled


FORGERIES: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "two parts": lambda: forged().rpartition(".")[0],
    "four parts": lambda: forged() + ".x",
    "no signature": lambda: forged().rpartition(".")[0] + ".",
    "a payload that was swapped": swapped_payload,
    "a signature that was altered": lambda: altered(forged(), -10 % len(forged())),
    "characters that decoders skip": lambda: forged().replace(".", ".!", 1),
    "another spelling of the signature": lambda: respelled(forged()),
    "white space around it": lambda: f" {forged()}\n",
    "letters of another script": lambda: forged() + "\u0430",
    "a lone surrogate": lambda: "\ud800",
    "a megabyte": lambda: forged(claims(jti="x" * 1_000_000)),
    "alg none": lambda: by_hand({"alg": "none", "typ": "at+jwt", "kid": KEYS.kid}, signature=b""),
    "alg none with a signature": lambda: by_hand({"alg": "none", "typ": "at+jwt", "kid": KEYS.kid}),
    "alg HS256 under the public key": lambda: forged(key=PUBLIC.public_bytes_raw(), algorithm="HS256"),
    "alg HS256 with a signature of ours": lambda: by_hand({"alg": "HS256", "typ": "at+jwt", "kid": KEYS.kid}),
    "a stranger's key under our kid": lambda: forged(key=STRANGER),
    "a stranger's key in the header": lambda: forged(key=STRANGER, jwk={"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}),
    "an unknown kid": lambda: forged(kid="another"),
    "no kid": lambda: by_hand({"alg": "EdDSA", "typ": "at+jwt"}),
    "a kid that is a list": lambda: by_hand({"alg": "EdDSA", "typ": "at+jwt", "kid": [KEYS.kid]}),
    "a header that is a list": lambda: by_hand([]),  # type: ignore[arg-type]
    "typ JWT": lambda: forged(typ="JWT"),
    "no typ": lambda: forged(typ=None),
    "a critical extension": lambda: forged(crit=["b64"]),
    "no expiry": lambda: forged(claims(exp=None)),
    "an expiry in the past": lambda: forged(claims(exp=int(datetime.now(UTC).timestamp()) - 1)),
    "an expiry that is a word": lambda: by_hand_claims(exp="never"),
    "an expiry past all calendars": lambda: forged(claims(exp=10**18)),
    "not valid yet": lambda: forged(claims(nbf=int(datetime.now(UTC).timestamp()) + 60)),
    "issued in the future": lambda: forged(claims(iat=int(datetime.now(UTC).timestamp()) + 60)),
    "another issuer": lambda: forged(claims(iss="another")),
    "another audience": lambda: forged(claims(aud="another")),
    "several audiences": lambda: forged(claims(aud=["chatback", "another"])),
    "no audience": lambda: forged(claims(aud=None)),
    "no issuer": lambda: forged(claims(iss=None)),
    "no subject": lambda: forged(claims(sub=None)),
    "no session": lambda: forged(claims(sid=None)),
    "no workspace": lambda: forged(claims(wid=None)),
    "no token id": lambda: forged(claims(jti=None)),
    "no role": lambda: forged(claims(role=None)),
    "an unknown role": lambda: forged(claims(role="EMPEROR")),
    "a session that is a number": lambda: forged(claims(sid=1)),
    "a session that is no id": lambda: forged(claims(sid="1")),
}


def by_hand_claims(**changes: Any) -> str:
    text = f"{unsigned_part({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': KEYS.kid})}.{unsigned_part(claims(**changes))}"
    return f"{text}.{urlsafe_b64encode(KEYS.signing.sign(text.encode())).rstrip(b'=').decode()}"


class TestJwtTokenSigner(TokenSignerContract):
    @pytest.fixture
    def signer(self) -> TokenSigner:
        return JwtTokenSigner(KEYS)

    @pytest.fixture
    def other(self) -> TokenSigner:
        return JwtTokenSigner(a_key_ring(b"2"))

    @pytest.mark.parametrize("forgery", FORGERIES)
    def test_a_forged_access_token_is_refused(self, signer: TokenSigner, forgery: str) -> None:
        with pytest.raises(TokenInvalid):
            signer.verify_access_token(FORGERIES[forgery]())

    def test_the_forger_of_these_tests_can_make_an_honest_token(self, signer: TokenSigner) -> None:
        honest = by_hand({"alg": "EdDSA", "typ": "at+jwt", "kid": KEYS.kid})
        assert [signer.verify_access_token(token)[0].user_id for token in (forged(), honest)] == [CALLER.user_id] * 2

    def test_a_refusal_does_not_carry_the_library_s_words(self, signer: TokenSigner) -> None:
        with pytest.raises(TokenInvalid) as refused:
            signer.verify_access_token(forged(claims(aud="secret audience")))
        assert refused.value.__suppress_context__

    def test_a_clock_a_little_ahead_is_forgiven(self, signer: TokenSigner) -> None:
        ahead = a_token(signer, age=timedelta(seconds=-3))
        assert signer.verify_access_token(ahead)[0] == CALLER

    def test_other_services_can_verify_with_the_public_key(self, signer: TokenSigner) -> None:
        said = jwt.decode(a_token(signer), PUBLIC_PEM, ["EdDSA"], audience="chatback", issuer="chatback")
        assert UUID(said["sub"]) == CALLER.user_id

    @pytest.mark.parametrize("respell", [str.upper, lambda text: text + " ", lambda text: text.replace(".3.", ".03.")])
    def test_another_spelling_of_a_refresh_token_states_nothing(
        self, signer: TokenSigner, respell: Callable[[str], str]
    ) -> None:
        assert signer.refresh_session(respell(signer.refresh_token(a_session(generation=3)))) is None

    def test_a_page_token_is_url_safe_and_short(self, signer: TokenSigner) -> None:
        token = signer.page_token("list 1", ["2026-03-04T05:06:07.891000+00:00", str(uuid4())])
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,200}", token)
