"""OpenPGP signatures, verified by Sequoia (`pip install owsgit[pgp]`).

Exactly one detached signature; SHA-1 and other broken algorithms are refused by Sequoia's standard policy.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from owsgit.ledger.sshsig import BadSignatureError
from owsgit.model import keys as keys_format
from owsgit.model.errors import UnavailableError

try:
    import pysequoia
    from pysequoia import packet
except ImportError:  # the extra is not installed: said when the first such signature comes
    pysequoia = None  # type: ignore[assignment]

BEGIN = b"-----BEGIN PGP SIGNATURE-----"
SIGNATURE_BYTES_MAX = 32 * 1024
_ARMOUR = re.compile(
    rb"-----BEGIN PGP SIGNATURE-----\n(?:[A-Za-z]+: [^\n]*\n)*\n"
    rb"(?:[A-Za-z0-9+/=]{1,200}\n)+-----END PGP SIGNATURE-----\n?"
)


@lru_cache(maxsize=1024)
def _certificate(armoured: str) -> Any:
    try:
        certificate = pysequoia.Cert.from_bytes(keys_format.openpgp_bytes(armoured))
        same = certificate.fingerprint.lower() == keys_format.openpgp_fingerprints(armoured)[0]
    except Exception:  # pysequoia raises RuntimeError and others; a key that cannot be read signs nothing
        return None
    return certificate if same else None  # what was claimed is what verifies


def verify(payload: bytes, armoured: bytes, keys: Callable[[], Iterable[tuple[str, str]]]) -> tuple[str, str]:
    """(owner, fingerprint) of the certificate that signed `payload`, out of `keys`: (owner, armoured certificate).

    Raises BadSignatureError, and UnavailableError where the extra is not installed.
    """
    if pysequoia is None:
        raise UnavailableError("the commit has an OpenPGP signature", remedy="pip install 'owsgit[pgp]'")
    if len(armoured) > SIGNATURE_BYTES_MAX or not _ARMOUR.fullmatch(armoured):
        raise BadSignatureError("the OpenPGP signature's armour is damaged, or holds more than one signature")
    try:
        packets = [str(part.tag) for part in packet.PacketPile.from_bytes(armoured)]
        signature = pysequoia.Sig.from_bytes(armoured)
    except Exception:
        raise BadSignatureError("the OpenPGP signature is damaged") from None
    if packets != ["Tag.Signature"]:
        raise BadSignatureError(f"exactly one OpenPGP signature is needed; found {len(packets)} packets")
    owners: dict[str, str] = {}
    certificates = []
    for owner, text in keys():
        certificate = _certificate(text)
        if certificate is not None:
            if owners.setdefault(certificate.fingerprint, owner) != owner:
                raise BadSignatureError(f"two users have the OpenPGP key {certificate.fingerprint}")
            certificates.append(certificate)
    issuer = signature.issuer_fingerprint or "an unnamed key"
    try:
        found = pysequoia.verify(bytes=payload, store=lambda _: certificates, signature=signature).valid_sigs
    except Exception:
        raise BadSignatureError(
            f"no user's OpenPGP key verifies the signature (made by {issuer})",
            remedy="check that the key is in your user's file, and that it is valid",
        ) from None
    if len(found) != 1 or found[0].certificate not in owners:
        raise BadSignatureError("exactly one valid OpenPGP signature is needed")
    return owners[found[0].certificate], found[0].certificate
