"""What a gateway shows to clients, from wherever its file says: secrets, files of the node, authorities."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from owsgit.gateway import certificates
from owsgit.gateway.certificates import Certificate
from owsgit.gateway.tls import Secured, Trust
from owsgit.model.errors import InvalidError, OwsgitError, Problem, UnavailableError
from owsgit.model.service import Site
from owsgit.services.gateways.orders import Orders
from owsgit.services.gateways.spec import GatewaySpec
from owsgit.services.gateways.tls import AcmeSpec, CertificateFiles, CertificateSpec, MutualTlsSpec

FOLDERS = "certificateFolders"
"""The node's setting of where certificates may be."""


@dataclass(frozen=True)
class Shown:
    """What can be served of a gateway, what is wrong with the rest, and what is still being ordered of it."""

    secured: tuple[Secured, ...] = ()
    problems: tuple[Problem, ...] = ()
    pending: tuple[Problem, ...] = ()


class PendingError(UnavailableError):
    """A certificate is not there yet."""


class Certificates:
    """Reads the certificates of gateways, and knows which are shown now."""

    def __init__(self, site: Site, orders: Orders) -> None:
        self._site, self._orders = site, orders
        self._shown: dict[str, Shown] = {}  # by gateway

    def read(self, name: str, spec: GatewaySpec) -> Shown:
        """What the gateway is to show now: what it showed before where there is nothing good now.

        Raises OwsgitError if it cannot be known whom to let in: then nothing may be served.
        """
        if spec.tls is None:
            return Shown()
        trust = self._trust(spec.tls.mutual_tls)
        before = {each.host: each for each in self.shown(name).secured}
        secured: list[Secured] = []
        problems: list[Problem] = []
        pending: list[Problem] = []
        for host, about, path in spec.certificates():
            try:
                found = Secured(host, self._certificate(host, about, path), trust, spec.tls.min_version, spec.tls.http2)
            except OwsgitError as error:
                (pending if isinstance(error, PendingError) else problems).extend(error.problems)
                if host not in before:
                    continue
                found = replace(before[host], trust=trust, version_min=spec.tls.min_version, http2=spec.tls.http2)
            secured.append(found)
        return Shown(tuple(secured), tuple(problems), tuple(pending))

    def keep(self, name: str, shown: Shown) -> None:
        """Remember what is shown now."""
        self._shown[name] = shown

    def forget(self, name: str) -> None:
        self._shown.pop(name, None)

    def shown(self, name: str) -> Shown:
        return self._shown.get(name, Shown())

    def facts(self, name: str, spec: GatewaySpec) -> Iterator[Mapping[str, Any]]:
        """What status says of each certificate."""
        shown = {each.host: each.certificate for each in self.shown(name).secured}
        for host, about, _ in spec.certificates():
            told = shown[host].facts(host) if host in shown else {"host": host or "any"}
            problem = self._orders.problem(host, about.acme) if about.acme is not None else ""
            yield {**told, "problem": problem} if problem else told

    def _certificate(self, host: str, about: CertificateSpec, path: str) -> Certificate:
        """Raises OwsgitError."""
        if about.acme is not None:
            return self._ordered(host, about.acme, f"{path}.acme")
        if about.files is not None:
            what, path = f"the certificate in {about.files.chain}", f"{path}.files"
            pem = self._from_files(about.files, path)
        else:
            what, path = f"the certificate in the secret {about.secret}", f"{path}.secret"
            pem = self._from_secret(about.secret or "", path)
        found = Certificate.parse(pem, what, path)
        found.check(host, what, path)
        return found

    def _ordered(self, host: str, acme: AcmeSpec, path: str) -> Certificate:
        found = self._orders.certificate(host, acme)
        if found is None:
            problem = self._orders.problem(host, acme) or f"a certificate is being ordered from {acme.directory}"
            raise PendingError(f"there is no certificate for {host} yet: {problem}", path=path)
        found.check(host, f"the certificate of {acme.directory}", path)
        return found

    def _from_secret(self, secret: str, path: str) -> bytes:
        value = self._site.secrets.get(secret)
        if value is None:
            raise UnavailableError(
                f"the secret {secret} is not open on this node", path=path, remedy="owsgit status says why"
            )
        return value.content

    def _from_files(self, files: CertificateFiles, path: str) -> bytes:
        return self._file(files.chain, f"{path}.chain") + b"\n" + self._file(files.key, f"{path}.key")

    def _file(self, file: str, path: str) -> bytes:
        folders = [os.path.realpath(folder) for folder in self._site.settings.get(FOLDERS, ())]
        real = Path(os.path.realpath(file))
        if not any(real.is_relative_to(folder) for folder in folders):
            raise InvalidError(
                f"{file} is in none of the folders from which this node takes certificates",
                path=path,
                remedy=f'add its folder to "{FOLDERS}" in the node\'s node.json, and restart the node',
            )
        return certificates.read_file(str(real), path)

    def _trust(self, mutual: MutualTlsSpec | None) -> Trust | None:
        if mutual is None:
            return None
        path = "$.tls.mutualTls"
        if mutual.truststore is not None:
            what, path = "the truststore", f"{path}.truststore"
            pem = mutual.truststore.encode()
        else:
            what, path = f"the truststore in the secret {mutual.truststore_secret}", f"{path}.truststoreSecret"
            pem = self._from_secret(mutual.truststore_secret or "", path)
        revoked = b""
        if mutual.crl is not None:
            revoked = certificates.revocations(mutual.crl.encode(), "the revocation list", "$.tls.mutualTls.crl")
        return Trust(certificates.authorities(pem, what, path), mutual.required, revoked)
