"""OpenPGP signatures, made by a real gpg."""

import base64
import subprocess
from pathlib import Path

import pytest

from owsgit.ledger import openpgp, verify
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.model import keys
from owsgit.services import KINDS
from tests.support import people, projects
from tests.support.people import Person

PAYLOAD = b"tree 0\n\nmessage\n"


class Gpg:
    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.home = home

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        environment = {**people.CLEAN, "GNUPGHOME": str(self.home)}
        return subprocess.run(
            ["gpg", "--batch", "--quiet", "--passphrase", "", *arguments],
            env=environment,
            input=data,
            capture_output=True,
            check=True,
        ).stdout

    def key(self, name: str, *how: str) -> str:
        self.run("--quick-gen-key", f"{name} <{name}@example.com>", *(how or ("ed25519", "sign", "never")))
        return self.run("--armor", "--export", name).decode()

    def sign(self, *names: str, how: tuple[str, ...] = ()) -> bytes:
        users = [part for name in names for part in ("-u", name)]
        return self.run(*how, "--armor", "--detach-sign", *users, data=PAYLOAD)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Gpg:
    return Gpg(tmp_path_factory.mktemp("gpg") / "home")


@pytest.fixture(scope="module")
def ann(gpg: Gpg) -> str:
    return gpg.key("ann")


@pytest.fixture(scope="module")
def ben(gpg: Gpg) -> str:
    return gpg.key("ben", "rsa3072", "sign", "never")


def test_the_signer_is_found_among_the_keys(gpg: Gpg, ann: str, ben: str) -> None:
    known = [("ann", ann), ("ben", ben), ("damaged", openpgp_text("x"))]
    assert openpgp.verify(PAYLOAD, gpg.sign("ann"), lambda: known)[0] == "ann"
    assert openpgp.verify(PAYLOAD, gpg.sign("ben"), lambda: known)[0] == "ben"


def openpgp_text(body: str) -> str:
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{body}\n-----END PGP PUBLIC KEY BLOCK-----\n"


def test_signing_subkeys_count_for_their_certificate(gpg: Gpg) -> None:
    gpg.key("sue", "ed25519", "cert", "never")
    fingerprint = gpg.run("--with-colons", "--list-keys", "sue").decode().split("fpr:::::::::")[1].split(":")[0]
    gpg.run("--quick-add-key", fingerprint, "ed25519", "sign", "never")
    certificate = gpg.run("--armor", "--export", "sue").decode()
    assert openpgp.verify(PAYLOAD, gpg.sign("sue"), lambda: [("sue", certificate)])[0] == "sue"


def test_what_is_not_one_good_signature_of_a_known_key_is_refused(gpg: Gpg, ann: str, ben: str) -> None:
    both = [("ann", ann), ("ben", ben)]
    one = gpg.sign("ann")
    for payload, signature, known in [
        (PAYLOAD + b"x", one, both),
        (PAYLOAD, one, [("ben", ben)]),
        (PAYLOAD, one, []),
        (PAYLOAD, gpg.sign("ann", "ben"), both),
        (PAYLOAD, one + gpg.sign("ben"), both),
        (PAYLOAD, gpg.sign("ben", how=("--digest-algo", "SHA1", "--allow-weak-digest-algos")), both),
        (PAYLOAD, b"-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n", both),
        (PAYLOAD, one * 200, both),
    ]:
        with pytest.raises(BadSignatureError):
            openpgp.verify(payload, signature, lambda known=known: known)


def test_a_ledger_can_be_signed_with_openpgp_alone(tmp_path: Path, gpg: Gpg, ann: str, alice: Person) -> None:
    person = Person(
        "ann",
        alice.private,
        {"gpg.format": "openpgp", "user.signingKey": "ann", "gpg.program": str(wrapper(tmp_path, gpg))},
    )
    files = {"project.json": {"name": "shop", "roots": ["ann"]}, "users/ann.json": {"keys": [ann, alice.public]}}
    project = projects.create(tmp_path / "shop", person, files=files)
    project.write("README.md", "x")
    project.commit()
    report = verify.push(project.objects(), KINDS, None, project.head())
    assert [commit.signer.user for commit in report.commits] == ["ann", "ann"]
    assert report.commits[0].signer.algorithm == "openpgp"


def wrapper(folder: Path, gpg: Gpg) -> Path:
    script = folder / "gpg"
    script.write_text(f'#!/bin/sh\nGNUPGHOME={gpg.home} exec gpg --batch --passphrase "" "$@"\n')
    script.chmod(0o755)
    return script


def test_a_certificate_is_the_same_whatever_its_armour_says(gpg: Gpg, ann: str) -> None:
    """Otherwise another user could list it too, and be taken for its owner."""
    shown = gpg.run("--with-colons", "--list-keys", "ann").decode()
    fingerprints = [line.split(":")[9].lower() for line in shown.splitlines() if line.startswith("fpr")]
    assert keys.openpgp_fingerprints(ann) == fingerprints
    commented = ann.replace("BLOCK-----\n", "BLOCK-----\nComment: mine\n", 1)
    assert keys.identities(commented) == keys.identities(ann)
    for bad in (
        ann + ann,
        ann.replace("mDM", "mDN", 1),
        ann.split("\n\n")[0],
        gpg.run("--armor", "--export-secret-keys", "ann").decode(),
    ):
        with pytest.raises(keys.KeyFormatError):
            keys.identities(bad)


def test_subkeys_are_claimed_too(gpg: Gpg) -> None:
    gpg.key("tom", "ed25519", "cert", "never")
    shown = gpg.run("--with-colons", "--list-keys", "tom").decode()
    fingerprint = next(line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr"))
    gpg.run("--quick-add-key", fingerprint, "ed25519", "sign", "never")
    assert len(keys.identities(gpg.run("--armor", "--export", "tom").decode())) == 2


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"])
def test_an_armour_has_one_reading_only(ann: str, ben: str, separator: str) -> None:
    """A comment that one reader takes for a line end hid one certificate from one reader, and another from the other."""
    body = "".join(ann.split("\n\n", 1)[1].split("\n=")[0].split("\n"))
    forged = ben.replace("BLOCK-----\n", f"BLOCK-----\nComment: x{separator}{separator}{body}\n", 1)
    with pytest.raises(keys.KeyFormatError):
        keys.identities(forged)


def test_packets_that_are_no_part_of_a_certificate_are_refused(ann: str) -> None:
    data = keys.openpgp_bytes(ann)
    for extra in (b"\xd5\x03abc", b"\xca\x03PGP"):
        text = base64.b64encode(data + extra).decode()
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        with pytest.raises(keys.KeyFormatError):
            keys.identities(f"{keys.OPENPGP_BEGIN}\n\n{lines}\n{keys.OPENPGP_END}\n")


STRICTER = {
    "sha1": "SHA-1 collides",
    "two signatures of known keys": "exactly one signature says who answers for a commit",
}
"""What gpg --verify takes and we do not, and why."""


def test_verdicts_equal_those_of_gpg_or_are_stricter_on_purpose(tmp_path: Path) -> None:
    """Good and bad signatures by keys that gpg knows as well; subkeys, revoked and expired keys among them."""
    gpg = Gpg(tmp_path / "home")
    known = [("zoe", gpg.key("zoe")), ("yan", gpg.key("yan", "rsa3072", "sign", "never"))]
    good = gpg.sign("zoe")
    cases: dict[str, tuple[bytes, bytes]] = {
        "good": (PAYLOAD, good),
        "rsa": (PAYLOAD, gpg.sign("yan")),
        "sha256": (PAYLOAD, gpg.sign("yan", how=("--digest-algo", "SHA256"))),
        "sha1": (PAYLOAD, gpg.sign("yan", how=("--digest-algo", "SHA1", "--allow-weak-digest-algos"))),
        "changed payload": (PAYLOAD + b"x", good),
        "two signatures of known keys": (PAYLOAD, gpg.sign("zoe", "yan")),
        "truncated": (PAYLOAD, good[: len(good) // 2]),
        "garbage": (PAYLOAD, b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"),
        "flipped": (
            PAYLOAD,
            good.replace(good.splitlines()[3][5:6], b"A" if good.splitlines()[3][5:6] != b"A" else b"B", 1),
        ),
    }
    gpg.key("sub", "ed25519", "cert", "never")
    shown = gpg.run("--with-colons", "--list-keys", "sub").decode()
    fingerprint = next(line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr"))
    gpg.run("--quick-add-key", fingerprint, "ed25519", "sign", "never")
    known.append(("sub", gpg.run("--armor", "--export", "sub").decode()))
    cases["by a subkey"] = (PAYLOAD, gpg.sign("sub"))
    gpg.key("short", "ed25519", "sign", "seconds=2")
    known.append(("short", gpg.run("--armor", "--export", "short").decode()))
    cases["by a key that expires"] = (PAYLOAD, gpg.sign("short"))
    accepted, differing = 0, {}
    for name, (payload, signature) in cases.items():
        file = tmp_path / "signature.asc"
        file.write_bytes(signature)
        environment = {**people.CLEAN, "GNUPGHOME": str(gpg.home)}
        command = ["gpg", "--batch", "--status-fd", "1", "--verify", str(file), "-"]
        done = subprocess.run(command, env=environment, input=payload, capture_output=True)
        theirs = done.returncode == 0 and b"GOODSIG" in done.stdout
        try:
            ours = bool(openpgp.verify(payload, signature, lambda: known)[0])
        except BadSignatureError:
            ours = False
        accepted += ours
        if ours != theirs:
            differing[name] = ours
    assert accepted >= 4
    assert all(not ours and name in STRICTER for name, ours in differing.items()), differing
