"""A channel over TLS: it believes the system's authorities only, and speaks HTTP/2 or nothing."""

import asyncio
import datetime as dt
import ssl

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llm_transformer.h2 import CallError, Channel


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of `localhost` and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


async def _echo(request, context):
    return request


class _Handlers(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        return grpc.unary_unary_rpc_method_handler(_echo)


@pytest.fixture
async def target(certificate):
    cert, key = certificate
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handlers(),))
    port = server.add_secure_port(
        "localhost:0",
        grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())]),
    )
    await server.start()
    yield f"localhost:{port}"
    await server.stop(None)


async def _ask(target):
    channel = Channel(target, tls=True)
    try:
        async with asyncio.timeout(20):
            return await channel.unary("/test.Service/Echo", b"hello")
    finally:
        await channel.close()


async def test_a_server_with_a_certificate_that_is_believed_answers(
    target, certificate, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert (await _ask(target))[0] == b"hello"


async def test_a_server_with_another_certificate_is_out_of_reach(target):
    with pytest.raises(CallError) as raised:
        await _ask(target)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_speaks_http_1_only_is_out_of_reach(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["http/1.1"])
    server = await asyncio.start_server(lambda *_: None, "localhost", 0, ssl=context)
    async with server:
        with pytest.raises(CallError) as raised:
            await _ask(f"localhost:{server.sockets[0].getsockname()[1]}")
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
