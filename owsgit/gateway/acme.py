"""Orders a certificate over ACME (RFC 8555), with certbot's library. Blocking: for a thread of its own.

The library does what is signed and polled; here is one order from its account to its certificate.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from owsgit.model import terminal
from owsgit.model.errors import UnavailableError

REQUEST_SECONDS_MAX = 20
NONCES_MAX = 4
ORDER_SECONDS_MAX = 90
_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


@dataclass(frozen=True)
class Authority:
    """Who is asked, and how it looks who has a name."""

    directory: str
    email: str = ""
    challenge: str = "http-01"
    certificate: str = ""  # PEM of the authority of the directory's own certificate; empty: one that is known


@dataclass(frozen=True)
class Challenge:
    """What the authority is going to ask for; `answer` is the key authorization (RFC 8555 8.1)."""

    kind: str
    host: str
    token: str
    answer: str


@challenges.ChallengeResponse.register
class _AlpnResponse(challenges.KeyAuthorizationChallengeResponse):
    typ = "tls-alpn-01"


@challenges.Challenge.register
class _Alpn(challenges.KeyAuthorizationChallenge):
    response_cls = _AlpnResponse
    typ = response_cls.typ

    def validation(self, account_key: JWK, **unused: Any) -> str:
        return str(self.key_authorization(account_key))


def new_account() -> bytes:
    """The key of an account, as PEM: whoever has it, orders in its name."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def order(authority: Authority, account: bytes, host: str, publish: Callable[[Challenge], None]) -> bytes:
    """A certificate for `host`: the chain and its key, as PEM.

    `account` is the account's key; `publish` returns when all who may be asked know the challenge. Raises
    UnavailableError with what the authority says.
    """
    with tempfile.NamedTemporaryFile() as trusted:
        trusted.write(authority.certificate.encode())
        trusted.flush()
        try:
            return _order(authority, account, host, publish, trusted.name if authority.certificate else True)
        except (errors.Error, messages.Error, requests.RequestException, JoseError, ValueError) as error:
            raise UnavailableError(
                f"{authority.directory} gave no certificate for {host}: {terminal.safe(_words(error), 500)}",
                remedy="is the name's address one of the nodes', and is the port open to the world?",
            ) from None


class _Network(client.ClientNetwork):
    """Asks again when the authority does not take its nonce (RFC 8555 6.5), more often than the library does."""

    def post(self, *arguments: Any, **options: Any) -> requests.Response:
        for _ in range(NONCES_MAX):
            try:
                return super().post(*arguments, **options)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*arguments, **options)


def _order(
    authority: Authority, account: bytes, host: str, publish: Callable[[Challenge], None], trusted: bool | str
) -> bytes:
    key = JWKEC(key=serialization.load_pem_private_key(account, None))
    net = _Network(
        key,
        alg=ES256,
        verify_ssl=trusted,  # type: ignore[arg-type]  # requests takes a path as well
        user_agent="owsgit",
        timeout=REQUEST_SECONDS_MAX,
    )
    acme = client.ClientV2(client.ClientV2.get_directory(authority.directory, net), net)
    _log_in(acme, authority)
    own = ec.generate_private_key(ec.SECP256R1())
    placed = acme.new_order(_request(own, host))
    for authorization in placed.authorizations:
        if authorization.body.status == messages.STATUS_VALID:
            continue
        chosen = next((each for each in authorization.body.challenges if each.chall.typ == authority.challenge), None)
        if chosen is None:
            offered = ", ".join(each.chall.typ for each in authorization.body.challenges)
            raise ValueError(f"it offers {offered}, not {authority.challenge}")
        response, answer = chosen.chall.response_and_validation(key)
        token = chosen.chall.encode("token")
        publish(Challenge(authority.challenge, host, token, str(answer)))
        acme.answer_challenge(chosen, response)
    deadline = datetime.now() + timedelta(seconds=ORDER_SECONDS_MAX)  # noqa: DTZ005 - as the library compares it
    done = acme.poll_and_finalize(placed, deadline)
    return done.fullchain_pem.encode() + _pem(own)


def _log_in(acme: client.ClientV2, authority: Authority) -> None:
    wanted = messages.NewRegistration.from_data(email=authority.email or None, terms_of_service_agreed=True)
    try:
        acme.net.account = acme.new_account(wanted)
    except errors.ConflictError as known:  # the same key: the same account
        acme.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())


def _request(key: ec.EllipticCurvePrivateKey, host: str) -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, False)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def proof(challenge: Challenge) -> bytes:
    """What is shown to an authority that asks with tls-alpn-01 (RFC 8737 3): chain and key."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(challenge.answer.encode())
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "owsgit")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(challenge.host)]), False)
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest.finalize()), True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + _pem(key)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _words(error: Exception) -> str:
    if isinstance(error, errors.ValidationError):
        found = [
            each.error.detail
            for authorization in error.failed_authzrs
            for each in authorization.body.challenges
            if each.error is not None and each.error.detail
        ]
        return "; ".join(found) or "it could not validate the name"
    if isinstance(error, errors.TimeoutError):
        return f"it was not done within {ORDER_SECONDS_MAX} s"
    if isinstance(error, messages.Error):
        return error.detail or error.typ
    if isinstance(error, requests.RequestException):
        return f"it cannot be reached ({type(error).__name__})"
    return str(error) or type(error).__name__
