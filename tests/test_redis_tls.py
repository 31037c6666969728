"""Servers behind TLS: verified unless the URL says otherwise, and a certificate that is wrong is told at once."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trio_session import ConfigError, RedisConnection, StorageUnavailableError
from trio_session.abc import Lifetime
from trio_session.redis import open_redis_store

from .redis_servers import RedisServer, redis_server

LIFE = Lifetime(idle=100.0)
AT_ONCE = 1.5  # seconds; patience would take two


@dataclass
class Party:
    """Somebody with a key and a certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def save(self, path: Path) -> Path:
        """Key and certificate in one file."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(key + self.certificate.public_bytes(serialization.Encoding.PEM))
        return path


def make_party(
    name: str, *, issuer: Party | None = None, hosts: tuple[str, ...] = (), ends: dt.timedelta = dt.timedelta(hours=1)
) -> Party:
    """A certificate for `hosts`, or without an issuer one of an authority; it ends so long from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signer = issuer.key if issuer is not None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=issuer is None,
                crl_sign=issuer is None,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    names = [x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Party(key, builder.sign(signer, hashes.SHA256()))


@dataclass
class Papers:
    """Files of certificates: of an authority, of another one, of servers, and of a client."""

    authority: Path
    stranger: Path
    server: Path
    other_server: Path
    client: Path


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    authority, stranger = make_party("authority"), make_party("stranger")
    server = make_party("server", issuer=authority, hosts=("localhost", "127.0.0.1"))
    other_server = make_party("other", issuer=authority, hosts=("elsewhere.example",))
    client = make_party("client", issuer=authority)
    return Papers(
        *(
            party.save(folder / f"{number}.pem")
            for number, party in enumerate((authority, stranger, server, other_server, client))
        )
    )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def behind_tls(server: RedisServer, certificate: Path, *, clients_of: Path | None = None) -> AsyncIterator[str]:
    """Put TLS in front of a server; yields `127.0.0.1:port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of)

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
        while data := await source.receive_some():
            await sink.send_all(data)
        scope.cancel()

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            async with (
                stream,
                await trio.open_unix_socket(str(server.socket)) as inside,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(pump, stream, inside, nursery.cancel_scope)
                nursery.start_soon(pump, inside, stream, nursery.cancel_scope)
        except* trio.BrokenResourceError:
            pass  # the client did not like the certificate, or we not the client

    async with trio.open_nursery() as nursery:
        serve_tls = partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1", https_compatible=True)
        listeners = await nursery.start(serve_tls)
        yield f"127.0.0.1:{listeners[0].transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def use(url: str) -> None:
    """Something that needs a connection, the other one too, and more than one piece of TLS."""
    key, token = "ab" + "c" * 20, "t" * 24
    with trio.fail_after(10):
        async with open_redis_store(url) as store:
            loaded = await store.acquire(key, token, lease=1.0, life=LIFE)
            await store.commit(key, token, version=loaded.version, blob=bytes(100_000), life=LIFE)
            assert (await store.load(key, life=LIFE)).blob == bytes(100_000)
            assert store._topology.nodes[0].control.listening


async def is_refused(url: str, problem: str) -> None:
    before = trio.current_time()
    with trio.fail_after(10), pytest.raises(StorageUnavailableError, match=problem):
        async with open_redis_store(url):
            pass
    assert trio.current_time() - before < AT_ONCE


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_that_is_who_it_says(server: RedisServer, papers: Papers, host: str) -> None:
    """Its certificate is from an authority that we trust, and for the name or the address by which we call it."""
    async with behind_tls(server, papers.server) as at:
        port = at.partition(":")[2]
        await use(f"rediss://{host}:{port}/0?ssl_ca_certs={papers.authority}")


async def test_a_server_of_another_name(server: RedisServer, papers: Papers) -> None:
    """A certificate for somebody else is refused at once; unless names are not to be checked."""
    async with behind_tls(server, papers.other_server) as at:
        url = f"rediss://{at}/0?ssl_ca_certs={papers.authority}"
        await is_refused(url, rf"^rediss://{at}/0: its certificate is not accepted: .*not valid for '127.0.0.1'")
        await use(f"{url}&ssl_check_hostname=false")


async def test_a_server_of_an_unknown_authority(server: RedisServer, papers: Papers) -> None:
    """A certificate from nobody that we know is refused at once; the name being right does not help."""
    async with behind_tls(server, papers.server) as at:
        problem = "its certificate is not accepted: .*(self.signed|unable to get local issuer)"
        await is_refused(f"rediss://{at}/0", problem)
        await is_refused(f"rediss://{at}/0?ssl_ca_certs={papers.stranger}", problem)
        await is_refused(f"rediss://{at}/0?ssl_ca_certs={papers.stranger}&ssl_check_hostname=false", problem)
        port = int(at.partition(":")[2])
        with pytest.raises(StorageUnavailableError, match=problem):
            async with open_redis_store(RedisConnection(scheme="rediss", port=port)):
                pass


async def test_a_certificate_that_nobody_looks_at(server: RedisServer, papers: Papers) -> None:
    """Who says so gets encryption without knowing with whom."""
    async with behind_tls(server, papers.other_server) as at:
        await use(f"rediss://{at}/0?ssl_cert_reqs=none")


async def test_a_client_that_has_to_show_a_certificate(server: RedisServer, papers: Papers) -> None:
    """We can, if the server wants to see one; without it there is no connection."""
    async with behind_tls(server, papers.server, clients_of=papers.authority) as at:
        url = f"rediss://{at}/0?ssl_ca_certs={papers.authority}"
        await use(f"{url}&ssl_certfile={papers.client}&ssl_keyfile={papers.client}")
        with trio.fail_after(10), pytest.raises(StorageUnavailableError, match=f"^rediss://{at}/0: ."):
            async with open_redis_store(url):
                pass


async def test_a_server_without_tls(server: RedisServer) -> None:
    """To speak TLS to a plain server is an error, not a program that hangs."""
    with trio.fail_after(10), pytest.raises(StorageUnavailableError, match=r"^rediss://127.0.0.1:\d+/0: ."):
        async with open_redis_store(f"rediss://127.0.0.1:{server.port}"):
            pass


async def test_a_file_that_is_no_certificate(papers: Papers, tmp_path: Path) -> None:
    """Certificates that cannot be loaded are a mistake of the configuration."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for option in ("ssl_ca_certs", "ssl_certfile"):
        with pytest.raises(ConfigError, match="cannot be loaded"):
            async with open_redis_store(f"rediss://127.0.0.1?{option}={nonsense}"):
                pass
