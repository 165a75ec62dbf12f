"""TLS of a port: which certificate is shown to whom, and who has to show one.

Each host name has its own settings. They are chosen by the name in a client's first message (SNI, RFC 6066), and each
request is held against what its connection was made with: a connection that was made for one host does not reach
another that asks for more, whatever its Host header says.
"""

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from owsgit.gateway.certificates import Certificate
from owsgit.gateway.hello import Hello
from owsgit.model.errors import InvalidError

ANY_HOST = ""
ACME_PROTOCOL = "acme-tls/1"
"""What an authority that checks who has a name asks for (RFC 8737)."""


@dataclass(frozen=True)
class Trust:
    """Whose certificates clients may show."""

    authorities: bytes  # PEM
    required: bool = True
    revoked: bytes = b""  # PEM of a revocation list; empty without one


@dataclass(frozen=True)
class Secured:
    """How one host name (`*.example.com` for the names one label below, ANY_HOST for all others) is served."""

    host: str
    certificate: Certificate
    trust: Trust | None = None
    version_min: str = "TLSv1.2"
    http2: bool = True

    def fits(self, wanted: "Secured | None") -> bool:
        """Whether a connection that was made with this may ask for what is served with `wanted`.

        With the same certificate it may, as browsers that share connections rely on (RFC 9113 9.1.1); but never where
        clients have to prove themselves in another way.
        """
        if wanted is None or wanted.trust != self.trust:
            return False
        return wanted.host == self.host or wanted.certificate == self.certificate


class HandshakeError(ssl.SSLError):
    """A handshake that OpenSSL refused. `alert` is what the client has to be told, as it goes over the wire."""

    def __init__(self, error: ssl.SSLError, alert: bytes) -> None:
        super().__init__(*error.args)
        self.alert = alert


class _Handshake(ssl.SSLObject):
    """The server's side of one. When it fails, event loops close the connection and send nothing that is left to be."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            raise HandshakeError(error, self.outgoing.read()) from None


class Context(ssl.SSLContext):
    """An SSL context that knows what it is for; None: for nobody."""

    secured: Secured | None
    sslobject_class = _Handshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> _Handshake:
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(made, _Handshake)
        made.outgoing = outgoing
        return made

    @classmethod
    def made(cls, secured: Secured) -> "Context":
        """Raises InvalidError for what OpenSSL does not take, such as a key that is too weak."""
        try:
            return cls._made(secured)
        except ssl.SSLError as error:
            raise InvalidError(
                f"the certificate for {secured.host or 'every host'} is not taken: {error.reason}"
            ) from None

    @classmethod
    def _made(cls, secured: Secured) -> "Context":
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.secured = secured
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if secured.version_min == "TLSv1.3" else ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["h2", "http/1.1"] if secured.http2 else ["http/1.1"])
        _load(context, secured.certificate.pem)
        if secured.trust is not None:
            _ask_clients(context, secured.trust)
        return context

    @classmethod
    def proving(cls, pem: bytes) -> "Context":
        """Shows a certificate that proves to an authority who has the name, and nothing else."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.secured = None
        context.set_alpn_protocols([ACME_PROTOCOL])
        _load(context, pem)
        return context


def _ask_clients(context: Context, trust: Trust) -> None:
    context.verify_mode = ssl.CERT_REQUIRED if trust.required else ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=trust.authorities.decode("ascii"))
    # nobody is let in on a ticket that was given before a certificate was revoked
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if trust.revoked:
        with _in_memory(trust.revoked) as path:
            context.load_verify_locations(cafile=path)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    with _in_memory(pem) as path:
        context.load_cert_chain(path, password=lambda: "")


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to `data`, as OpenSSL reads keys from files alone: it is never on a disk, nor seen by other processes."""
    descriptor = os.memfd_create("owsgit", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Security:
    """What a port serves with TLS: immutable, a new one is swapped in whole."""

    hosts: Mapping[str, Context] = field(default_factory=dict)
    proofs: Mapping[str, bytes] = field(default_factory=dict)
    """By host, certificates for an authority that asks who has it (RFC 8737); they come and go."""

    @classmethod
    def of(cls, wanted: Iterable[Secured], before: "Security") -> "Security":
        """What is served as before keeps its context, and with it the sessions of its clients.

        Of several for one host, one that asks clients for more goes first, then the one that comes first.
        """
        hosts: dict[str, Context] = {}
        for secured in sorted(wanted, key=_laxity):
            if secured.host not in hosts:
                old = before.hosts.get(secured.host)
                hosts[secured.host] = old if old is not None and old.secured == secured else Context.made(secured)
        return cls(hosts, before.proofs)

    def find(self, host: str) -> Context | None:
        """For a host name in lower case."""
        hosts = self.hosts
        return hosts.get(host) or hosts.get(f"*.{host.partition('.')[2]}") or hosts.get(ANY_HOST)

    def choose(self, hello: Hello) -> Context | None:
        """What a handshake is made with; None: it is refused. Raises InvalidError."""
        if hello.protocols == (ACME_PROTOCOL.encode(),):
            proof = self.proofs.get(hello.name)
            return Context.proving(proof) if proof is not None else None
        return self.find(hello.name)

    def admits(self, made: Secured | None, host: str) -> bool:
        """Whether a connection that was made with `made` may ask for `host`."""
        found = self.find(host)
        return made is not None and found is not None and made.fits(found.secured)

    def trusts(self, made: Secured | None, name: str) -> bool:
        """Whether what is served for `name`, as it was configured, asks no other proofs of its clients."""
        context = self.hosts.get(name)
        found = context.secured if context is not None else None
        return made is not None and found is not None and made.trust == found.trust


def _laxity(secured: Secured) -> int:
    if secured.trust is None:
        return 2
    return 0 if secured.trust.required else 1
