"""X.509 certificates: those that a port shows, read and checked before anything is served with them, and clients' own.

RFC 5280 (certificates), RFC 9525 (which names a certificate is for).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from owsgit.model.errors import InvalidError, UnavailableError

CHAIN_CERTIFICATES_MAX = 10
PEM_BYTES_MAX = 256 * 1024
RSA_BITS_MIN = 2048
WARNING_DAYS = 14
"""How long before its end a certificate is warned of."""


@dataclass(frozen=True)
class Certificate:
    """A chain and the key of its first certificate, which fit each other. Its repr does not say the key."""

    pem: bytes = field(repr=False)  # the chain, then the key
    names: tuple[str, ...]
    serial: int
    issuer: str
    begins: datetime
    ends: datetime

    @classmethod
    def parse(cls, pem: bytes, what: str, path: str) -> "Certificate":
        """From PEM: a chain, the server's own certificate first, and its key, in whatever order.

        `what` says where it is from, `path` which field of the file says so. Raises InvalidError: with nothing of the
        key.
        """
        if len(pem) > PEM_BYTES_MAX:
            raise InvalidError(f"{what}: {len(pem):,} bytes are too many for a certificate", path=path)
        chain = _chain(pem, what, path)
        leaf, key = chain[0], _key(pem, what, path)
        if _public(leaf.public_key()) != _public(key.public_key()):
            raise InvalidError(
                f"{what}: the key is not the one of the first certificate",
                path=path,
                remedy="put the server's own certificate first, and give the key that it was made for",
            )
        text = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(
            text,
            tuple(_names(leaf)),
            leaf.serial_number,
            leaf.issuer.rfc4514_string(),
            leaf.not_valid_before_utc,
            leaf.not_valid_after_utc,
        )

    def covers(self, host: str) -> bool:
        """Whether it is for `host`; '*.example.com' needs the same in the certificate."""
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names

    def check(self, host: str, what: str, path: str, now: datetime | None = None) -> None:
        """Raises InvalidError if it is not for `host` ('' is any), or not at this time."""
        now = now or datetime.now(UTC)
        if now >= self.ends:
            raise InvalidError(
                f"{what} ended on {self.ends:%Y-%m-%d}", path=path, remedy="replace it by one that is renewed"
            )
        if now < self.begins:
            raise InvalidError(f"{what} is valid from {self.begins:%Y-%m-%d %H:%M} UTC on, not yet", path=path)
        if host and not self.covers(host):
            shown = ", ".join(self.names[:5]) or "no name at all"
            raise InvalidError(
                f"{what} is for {shown}, not for {host}", path=path, remedy="give one that has this name in it"
            )

    def facts(self, host: str, now: datetime | None = None) -> dict[str, Any]:
        """What status says of it."""
        days = (self.ends - (now or datetime.now(UTC))).days
        told = {"host": host or "any", "issuer": self.issuer, "ends": f"{self.ends:%Y-%m-%dT%H:%M:%SZ}", "days": days}
        if days < WARNING_DAYS:
            told["warning"] = f"ends in {days} days" if days >= 0 else "has ended"
        return told


def read_files(chain: str, key: str, path: str) -> bytes:
    """The PEM of a certificate's chain and of its key, in files; `path` is where the setting says so.

    Raises UnavailableError.
    """
    return read_file(chain, f"{path}.chain") + b"\n" + read_file(key, f"{path}.key")


def read_file(file: str, path: str) -> bytes:
    """A file of PEM, at most a byte more than is taken. Raises UnavailableError."""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise UnavailableError(
            f"{file} cannot be read: {error.strerror}", path=path, remedy="the node's user has to be able to"
        ) from None


def authorities(pem: bytes, what: str, path: str) -> bytes:
    """The certificates of a truststore, as PEM. Raises InvalidError."""
    if len(pem) > PEM_BYTES_MAX * 4:
        raise InvalidError(f"{what}: {len(pem):,} bytes are too many for a truststore", path=path)
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidError(f"{what} holds no certificate in PEM", path=path, remedy="give the authority's") from None
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found)


def revocations(pem: bytes, what: str, path: str) -> bytes:
    """Certificate revocation lists, as PEM: one for each authority. Raises InvalidError."""
    begin = b"-----BEGIN X509 CRL-----"
    try:
        found = [x509.load_pem_x509_crl(begin + part) for part in pem.split(begin)[1:]]
    except ValueError:
        found = []
    if not found:
        raise InvalidError(f"{what} is no certificate revocation list in PEM", path=path)
    for each in found:
        ends = each.next_update_utc
        if ends is not None and ends < datetime.now(UTC):
            raise InvalidError(
                f"{what} is out of date since {ends:%Y-%m-%d}, and nobody would be let in", path=path, remedy="renew it"
            )
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found)


@lru_cache(maxsize=512)
def of_client(der: bytes) -> dict[str, Any]:
    """A client's certificate as events show it (clientCert). The dictionary is shared: not to be changed.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    certificate = x509.load_der_x509_certificate(der)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    serial = f"{certificate.serial_number:x}"
    serial = serial if len(serial) % 2 == 0 else f"0{serial}"
    return {
        "clientCertPem": pem,
        "subjectDN": certificate.subject.rfc4514_string(),
        "issuerDN": certificate.issuer.rfc4514_string(),
        "serialNumber": ":".join(serial[at : at + 2] for at in range(0, len(serial), 2)),
        "validity": {
            "notBefore": _time(certificate.not_valid_before_utc),
            "notAfter": _time(certificate.not_valid_after_utc),
        },
    }


def _time(at: datetime) -> str:
    return f"{at:%b} {at.day:2d} {at:%H:%M:%S %Y} GMT"


def _chain(pem: bytes, what: str, path: str) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidError(
            f"{what} holds no certificate in PEM", path=path, remedy="give -----BEGIN CERTIFICATE----- and the key"
        ) from None
    if len(chain) > CHAIN_CERTIFICATES_MAX:
        raise InvalidError(f"{what}: a chain of {len(chain)} certificates is too long", path=path)
    return chain


def _key(
    pem: bytes, what: str, path: str
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey:
    begin = pem.find(b"PRIVATE KEY-----")
    begin = pem.rfind(b"-----BEGIN ", 0, begin)
    end = pem.find(b"-----", pem.find(b"-----END ", begin) + 5)
    try:
        if begin < 0:
            raise ValueError
        key = serialization.load_pem_private_key(pem[begin : end + 5] + b"\n", password=None)
    except (ValueError, TypeError):
        raise InvalidError(
            f"{what} holds no private key in PEM that can be read without a password",
            path=path,
            remedy="openssl pkey -in key.pem writes one",
        ) from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_BITS_MIN:
        raise InvalidError(f"{what}: an RSA key of {key.key_size} bits is too weak", path=path)
    if not isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    ):
        raise InvalidError(f"{what}: the key is neither RSA nor of an elliptic curve", path=path)
    return key


def _public(key: Any) -> bytes:
    data: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def _names(certificate: x509.Certificate) -> Iterator[str]:
    with suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        yield from (name.lower() for name in found.get_values_for_type(x509.DNSName))
        yield from (str(address) for address in found.get_values_for_type(x509.IPAddress))
        return
    for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield str(name.value).lower()
