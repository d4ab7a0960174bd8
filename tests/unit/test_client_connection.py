"""How the client connects."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatback.client import ApiKey, ChatBack, ChatBackError
from chatback.client.connection import Tls
from tests.unit.client_service import USER, WHO, Scripted


def certificate() -> tuple[bytes, bytes]:
    """Makes a private key and a certificate for 127.0.0.1 that nobody else has signed."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ChatBack")])
    life = (now - timedelta(hours=1), now + timedelta(hours=1))
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *life)
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(place, critical=False).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, signed.public_bytes(serialization.Encoding.PEM)


async def call_over(tls: Tls, secret: bytes, public: bytes, seconds: float = 10) -> object:
    """Calls a service that listens with this certificate."""
    server = grpc.aio.server(handlers=[Scripted(GetCurrentUser=[USER])])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(secret, public)]))
    await server.start()
    try:
        async with ChatBack(f"127.0.0.1:{port}", credentials=ApiKey("k"), tls=tls, call_seconds=seconds) as chat:
            return await chat.auth.GetCurrentUser(WHO)
    finally:
        await server.stop(None)


async def test_a_service_behind_ones_own_authority_is_reached() -> None:
    secret, public = certificate()
    assert await call_over(grpc.ssl_channel_credentials(public), secret, public) == USER


@pytest.mark.parametrize("tls", [True, False])
async def test_nothing_is_said_to_a_service_that_cannot_prove_itself(tls: bool) -> None:
    with pytest.raises(ChatBackError) as caught:
        await call_over(tls, *certificate(), seconds=1)
    assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
