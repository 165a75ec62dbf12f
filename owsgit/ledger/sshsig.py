"""SSH signatures (OpenSSH's PROTOCOL.sshsig), verified in process on `cryptography`.

Stricter than `ssh-keygen -Y verify` on purpose: the reserved field is empty, nothing trails, RSA keys have 2048 bits or
more and sign with SHA-2, security keys have been touched.
"""

import base64
import binascii
import hashlib
import re
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from owsgit.ledger import sshcert
from owsgit.ledger.sshcert import BadCertificateError, SshCertificate
from owsgit.model.errors import RefusedError
from owsgit.model.keys import ALGORITHMS, KeyFormatError, SshKey, Wire, check_blob

NAMESPACE = b"git"
SIGNATURE_BYTES_MAX = 16 * 1024
LINE_CHARACTERS = 70
BEGIN = b"-----BEGIN SSH SIGNATURE-----"
_ARMOUR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n((?:[A-Za-z0-9+/=]{1,200}\n)+)-----END SSH SIGNATURE-----\n?")
_MAGIC = b"SSHSIG"
_DIGESTS = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_RSA_HASHES: dict[bytes, hashes.HashAlgorithm] = {b"rsa-sha2-256": hashes.SHA256(), b"rsa-sha2-512": hashes.SHA512()}
_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "ecdsa-sha2-nistp256": (ec.SECP256R1(), hashes.SHA256()),
    "ecdsa-sha2-nistp384": (ec.SECP384R1(), hashes.SHA384()),
    "ecdsa-sha2-nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_USER_PRESENT = 0x01


class BadSignatureError(RefusedError):
    """A signature that does not hold, or is not of the strict form."""


def verify(payload: bytes, armoured: bytes, namespace: bytes = NAMESPACE) -> SshKey:
    """The key that signed `payload`. Raises BadSignatureError. Whose key it is, is for the caller to know."""
    key, certificate = verify_certified(payload, armoured, namespace)
    if certificate is not None:
        raise BadSignatureError("a certificate is not taken here", remedy="sign with the key itself")
    return key


def verify_certified(
    payload: bytes, armoured: bytes, namespace: bytes = NAMESPACE
) -> tuple[SshKey, SshCertificate | None]:
    """The key that signed `payload`, and the certificate that came with it, if any, signed by its authority.

    Raises BadSignatureError. Whether the authority is one, is for the caller to know.
    """
    match = _ARMOUR.fullmatch(armoured)
    if match is None or len(armoured) > SIGNATURE_BYTES_MAX:
        raise BadSignatureError("the SSH signature's armour is damaged, or holds more than one signature")
    try:
        data = base64.b64decode(match[1].replace(b"\n", b""), validate=True)
        if _wrapped(data) != match[1]:
            raise BadSignatureError("the SSH signature's armour is not wrapped as OpenSSH does it, at 70 characters")
        return _verify(payload, data, namespace)
    except (binascii.Error, KeyFormatError, BadCertificateError) as error:
        raise BadSignatureError(f"the SSH signature is damaged: {error}") from None


def _wrapped(data: bytes) -> bytes:
    """The one form of the armour's text: in any other the same signature would make another commit id."""
    text = base64.b64encode(data)
    return b"".join(text[at : at + LINE_CHARACTERS] + b"\n" for at in range(0, len(text), LINE_CHARACTERS))


def _verify(payload: bytes, data: bytes, wanted: bytes) -> tuple[SshKey, SshCertificate | None]:
    wire = Wire(data)
    if wire.take(6) != _MAGIC or wire.uint32() != 1:
        raise BadSignatureError("not an SSH signature of version 1")
    blob, namespace, reserved, digest, signature = (wire.string() for _ in range(5))
    wire.end()
    if namespace != wanted:
        raise BadSignatureError(
            f"the signature's namespace is {namespace.decode('ascii', 'replace')!r:.40}, not {wanted.decode()!r}",
            remedy="sign with git commit -S" if wanted == NAMESPACE else "",
        )
    if reserved:
        raise BadSignatureError("the signature's reserved field is not empty")
    if digest not in _DIGESTS:
        raise BadSignatureError(
            f"the signature's hash {digest.decode('ascii', 'replace')!r:.40} is not sha256 or sha512"
        )
    signed = _signed(namespace, digest, payload)
    certificate = None
    if sshcert.is_certificate(Wire(blob).string().decode("ascii", "replace")):
        certificate = _certified(blob)
    key = certificate.key if certificate is not None else _key(blob)
    try:
        _check(key, signed, signature)
    except InvalidSignature:
        raise BadSignatureError(
            f"the signature by {key.fingerprint} does not match the commit: it was changed after it was signed"
        ) from None
    return key, certificate


@lru_cache(maxsize=1024)
def _certified(blob: bytes) -> SshCertificate:
    """The certificate in `blob`, with a good signature of the authority that it names."""
    certificate = sshcert.parse(blob)
    try:
        _check(certificate.authority, certificate.signed, certificate.signature)
    except InvalidSignature:
        raise BadSignatureError(
            f"the certificate {certificate.key_id!r:.60} is not signed by {certificate.authority.fingerprint}"
        ) from None
    return certificate


def _signed(namespace: bytes, digest: bytes, payload: bytes) -> bytes:
    """What the key itself signs: the namespace keeps a signature for one purpose from serving another."""
    parts = (namespace, b"", digest, _DIGESTS[digest](payload).digest())
    return _MAGIC + b"".join(map(_string, parts))


def sign_bare(key: ed25519.Ed25519PrivateKey, namespace: bytes, payload: bytes) -> bytes:
    """The 64 bytes of an Ed25519 key's signature: an SSH signature without its envelope."""
    return key.sign(_signed(namespace, b"sha512", payload))


def verify_bare(key: SshKey, namespace: bytes, payload: bytes, signature: bytes) -> None:
    """Check what `sign_bare` made. Raises BadSignatureError."""
    try:
        _ed25519(key.blob).verify(signature, _signed(namespace, b"sha512", payload))
    except InvalidSignature:
        raise BadSignatureError(f"the signature is not one by {key.fingerprint} over this text") from None


def armour(key: SshKey, namespace: bytes, signature: bytes) -> bytes:
    """The envelope around a bare signature, so that `ssh-keygen -Y verify` takes it."""
    inner = _string(key.algorithm.encode()) + _string(signature)
    parts = (key.blob, namespace, b"", b"sha512", inner)
    data = _MAGIC + (1).to_bytes(4, "big") + b"".join(map(_string, parts))
    return BEGIN + b"\n" + _wrapped(data) + b"-----END SSH SIGNATURE-----\n"


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@lru_cache(maxsize=1024)
def _key(blob: bytes) -> SshKey:
    algorithm = Wire(blob).string().decode("ascii", "replace")
    if algorithm not in ALGORITHMS:
        raise KeyFormatError(f"key algorithm {algorithm!r:.60} is not taken")
    check_blob(algorithm, blob)
    return SshKey(algorithm, blob)


def _check(key: SshKey, signed: bytes, signature: bytes) -> None:
    """Raises InvalidSignature, KeyFormatError or BadSignatureError unless `signature` is `key`'s over `signed`."""
    wire = Wire(signature)
    algorithm = wire.string()
    value = wire.string()
    plain = key.algorithm.removeprefix("sk-").removesuffix("@openssh.com")
    if key.algorithm.startswith("sk-"):
        signed = _touched(key, signed, wire.take(1)[0], wire.uint32())
    wire.end()
    if plain == "ssh-rsa":
        if algorithm not in _RSA_HASHES:
            raise BadSignatureError(f"RSA signatures with {algorithm.decode('ascii', 'replace')!r:.40} are not taken")
        _rsa(key.blob).verify(value, signed, padding.PKCS1v15(), _RSA_HASHES[algorithm])
        return
    if algorithm != key.algorithm.encode():
        raise BadSignatureError("the signature is of another algorithm than its key")
    if plain == "ssh-ed25519":
        _ed25519(key.blob).verify(value, signed)
        return
    numbers = Wire(value)
    r, s = numbers.mpint(), numbers.mpint()
    numbers.end()
    if r <= 0 or s <= 0:
        raise InvalidSignature
    _ecdsa(key.blob, plain).verify(encode_dss_signature(r, s), signed, ec.ECDSA(_CURVES[plain][1]))


def _touched(key: SshKey, signed: bytes, flags: int, counter: int) -> bytes:
    """What a security key signs (PROTOCOL.u2f). A signature that was made without a touch is refused."""
    if not flags & _USER_PRESENT:
        raise BadSignatureError(
            "the security key was not touched for this signature", remedy="use a key without no-touch"
        )
    wire = Wire(key.blob)
    for _ in range(2 if "ed25519" in key.algorithm else 3):  # algorithm, curve if any, key
        wire.string()
    application = hashlib.sha256(wire.string()).digest()
    return application + bytes([flags]) + counter.to_bytes(4, "big") + hashlib.sha256(signed).digest()


@lru_cache(maxsize=1024)
def _ed25519(blob: bytes) -> ed25519.Ed25519PublicKey:
    wire = Wire(blob)
    wire.string()
    return ed25519.Ed25519PublicKey.from_public_bytes(wire.string())


@lru_cache(maxsize=1024)
def _rsa(blob: bytes) -> rsa.RSAPublicKey:
    wire = Wire(blob)
    wire.string()
    exponent = wire.mpint()
    try:
        return rsa.RSAPublicNumbers(exponent, wire.mpint()).public_key()
    except (ValueError, OverflowError) as error:
        raise KeyFormatError(str(error)) from None


@lru_cache(maxsize=1024)
def _ecdsa(blob: bytes, plain: str) -> ec.EllipticCurvePublicKey:
    wire = Wire(blob)
    wire.string()
    wire.string()
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[plain][0], wire.string())
    except ValueError as error:
        raise KeyFormatError(str(error)) from None
