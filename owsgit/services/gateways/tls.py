"""How a gateway is served with TLS: `tls` of a gateway, and `certificate` of its domains.

Named after API Gateway's custom domain names, which have the same choices.
https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-custom-domains.html
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from owsgit.model.core import Port
from owsgit.model.spec import Document, Name, PlacedError, Reference

PEM_CHARACTERS_MAX = 256 * 1024
SOURCES = ("secret", "files", "acme")
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"

FilePath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=1024)]
Pem = Annotated[str, StringConstraints(pattern=r"-----BEGIN ", max_length=PEM_CHARACTERS_MAX)]


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("a directory is an address such as https://acme-v02.api.letsencrypt.org/directory")
    return url


class CertificateFiles(Document):
    """Files of every node, in a folder that its `certificateFolders` names; read again when they change."""

    chain: FilePath = Field(description="PEM of the certificate and those between it and its authority.")
    key: FilePath = Field(description="PEM of its private key, without a password.")


class AcmeSpec(Document):
    """An authority that certificates are ordered from, and renewed by, over ACME (RFC 8555)."""

    directory: Annotated[str, StringConstraints(max_length=1024), AfterValidator(_https)] = Field(
        LETS_ENCRYPT, description="The authority's directory; Let's Encrypt's by default."
    )
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)] | None = Field(
        None, description="Whom the authority may write to."
    )
    challenge: Literal["http-01", "tls-alpn-01"] = Field(
        "http-01",
        description="How the authority looks who has the name: at port 80 (http-01), or at port 443 (tls-alpn-01).",
    )
    ca_certificate: Pem | None = Field(
        None, description="PEM of the authority that the directory's own certificate is of, if it is a private one."
    )
    terms_of_service_agreed: Literal[True] = Field(description="That you have read the authority's terms, and agree.")


class CertificateSpec(Document):
    """Where a certificate and its key come from: exactly one of these."""

    secret: Name | None = Field(None, description="A secret that holds the chain and the key, both as PEM.")
    files: CertificateFiles | None = Field(None, description="Files of every node.")
    acme: AcmeSpec | None = Field(None, description="An authority that it is ordered from.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a certificate has exactly one of {', '.join(SOURCES)}; this one has {len(given)}")
        return self


class MutualTlsSpec(Document):
    """Which clients are let in: those with a certificate of an authority that is trusted here."""

    truststore: Pem | None = Field(None, description="PEM of the authorities whose certificates clients show.")
    truststore_secret: Name | None = Field(None, description="The same, in a secret.")
    required: bool = Field(
        True, description="False: clients may come without a certificate; one that they show has to be good."
    )
    crl: Pem | None = Field(
        None, description="PEM of revocation lists, one for each authority: whose certificates count no more."
    )

    @model_validator(mode="after")
    def _one_truststore(self) -> Self:
        if (self.truststore is None) == (self.truststore_secret is None):
            raise ValueError("mutualTls has exactly one of truststore, truststoreSecret")
        return self

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.truststore is not None:
            from cryptography import x509  # noqa: PLC0415 - for those alone who ask for certificates

            try:
                x509.load_pem_x509_certificates(self.truststore.encode())
            except ValueError:
                words = "the truststore holds no certificate in PEM: -----BEGIN CERTIFICATE----- ..."
                raise PlacedError(words, "truststore") from None
        return self


class HstsSpec(Document):
    """That browsers come with https alone from now on (RFC 6797)."""

    max_age: int = Field(31_536_000, ge=0, le=63_072_000, description="Seconds for which they remember it.")
    include_sub_domains: bool = Field(False, description="For all names below, too.")
    preload: bool = Field(False, description="That the name may be put into the lists of browsers.")

    @property
    def header(self) -> bytes:
        parts = [f"max-age={self.max_age}"]
        parts += ["includeSubDomains"] if self.include_sub_domains else []
        parts += ["preload"] if self.preload else []
        return "; ".join(parts).encode()


class PortTlsSpec(Document):
    """TLS on the gateway's port."""

    certificate: CertificateSpec | None = Field(
        None, description="For the domains that have none of their own; without domains, for every name."
    )
    min_version: Literal["TLSv1.2", "TLSv1.3"] = Field("TLSv1.2", description="The oldest version that is spoken.")
    http2: bool = Field(True, description="Whether HTTP/2 is offered beside HTTP/1.1.")
    mutual_tls: MutualTlsSpec | None = Field(None, description="Clients have to prove themselves by certificates.")
    redirect_port: Port | None = Field(
        None, description="Port without TLS whose requests are sent to this one, usually 80; answers http-01 as well."
    )
    hsts: HstsSpec | None = Field(None, description="Adds Strict-Transport-Security to every response.")

    def references(self) -> Iterator[Reference]:
        yield from certificate_references(self.certificate, "$.tls.certificate")
        if self.mutual_tls is not None and self.mutual_tls.truststore_secret is not None:
            yield Reference("secret", self.mutual_tls.truststore_secret, "$.tls.mutualTls.truststoreSecret")


def certificate_references(certificate: CertificateSpec | None, path: str) -> Iterator[Reference]:
    if certificate is not None and certificate.secret is not None:
        yield Reference("secret", certificate.secret, f"{path}.secret")
