"""SSH certificates of an authority that the ledger names: what ssh-keygen makes, verified as ssh-keygen does, and stricter."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from owsgit.ledger import signatures, sshsig, verify
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.ledger.verify import Review, Verified
from owsgit.model.errors import OwsgitError
from owsgit.services import KINDS
from tests.support import people, projects
from tests.support.people import Person
from tests.support.projects import Project, allow

PAYLOAD = b"tree 0\n\nmessage\n"
ALGORITHMS = ["ed25519", "ecdsa:256", "ecdsa:384", "rsa:3072"]


@dataclass
class Certified:
    """A person with a key that an authority certified."""

    person: Person
    authority: Person
    certificate: Path

    def sign(self, payload: bytes = PAYLOAD) -> bytes:
        """By ssh-keygen, with the certificate instead of the bare key."""
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(self.certificate)]
        return subprocess.run(command, input=payload, capture_output=True, check=True).stdout


def certify(folder: Path, authority: Person, name: str, algorithm: str = "ed25519", *options: str) -> Certified:
    """A new key of `name`, certified with `options` of ssh-keygen."""
    person = people.make(folder, name, algorithm)
    named = [] if "-n" in options else ["-n", name]
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority.private, "-I", f"id of {name}", *named, *options,
         person.private.with_suffix(".pub")], check=True, capture_output=True,
    )  # fmt: skip
    return Certified(person, authority, person.private.with_name("key-cert.pub"))


def accepted_by_openssh(folder: Path, authority: str, who: str, signature: bytes) -> bool:
    signers, file = folder / "signers", folder / "signature"
    signers.write_text(f"{who} cert-authority {authority}\n")
    file.write_bytes(signature)
    command = ["ssh-keygen", "-Y", "verify", "-n", "git", "-f", signers, "-I", who, "-s", file]
    return subprocess.run(command, input=PAYLOAD, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return people.make(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture
def project(tmp_path: Path, alice: Person, bob: Person, authority: Person) -> Project:
    files = {
        "project.json": {"name": "shop", "roots": ["alice"], "certificateAuthorities": [authority.public]},
        "users/bob.json": {"keys": [bob.public]},
        "users/dan.json": {"policies": ["files"]},
        "policies/files.json": allow("ows:UpdateFile"),
    }
    return projects.create(tmp_path / "shop", alice, files=files)


@pytest.fixture
def base(project: Project) -> Verified:
    return verify.push(project.objects(), KINDS, None, project.head()).head


def ours(base: Verified, signature: bytes, now: float | None = None) -> str:
    """Who signed, by our own reading; the refusal in words."""
    try:
        signer = signatures.signed_by(PAYLOAD, signature, base.state)
        signer.check_validity(now)
    except OwsgitError as error:
        return error.problems[0].message
    return signer.user


@pytest.mark.parametrize("of_authority", ALGORITHMS)
@pytest.mark.parametrize("of_user", ["ed25519", "ecdsa:256", "rsa:2048"])
def test_what_ssh_keygen_certifies_is_verified_as_it_does(tmp_path: Path, of_authority: str, of_user: str) -> None:
    authority = people.make(tmp_path, "ca", of_authority)
    made = certify(tmp_path, authority, "dan", of_user)
    signature = made.sign()
    key, certificate = sshsig.verify_certified(PAYLOAD, signature)
    assert certificate is not None and certificate.principals == ("dan",) and key.line == made.person.public
    assert certificate.authority.line == authority.public
    assert accepted_by_openssh(tmp_path, authority.public, "dan", signature)
    with pytest.raises(BadSignatureError):
        sshsig.verify_certified(PAYLOAD + b"x", signature)


STRICTER: dict[str, str] = {
    "two users": "a certificate for several users does not say which of them signed",
    "critical options": "a commit cannot keep them: where it was made from, which command was forced",
    "a wildcard": "a principal is a name",
}
"""What ssh-keygen -Y verify takes and we do not, and why."""


@pytest.mark.parametrize(
    ("how", "options", "told"),
    [
        ("good", (), "dan"),
        ("another user", ("-n", "eve"), "has to name exactly one user of the project"),
        ("two users", ("-n", "dan,bob"), "has to name exactly one user of the project"),
        ("critical options", ("-O", "force-command=/bin/true"), "critical options"),
        ("a host", ("-h",), "not one for users"),
        ("a root", ("-n", "alice"), "and no root"),
        ("a wildcard", ("-n", "d*"), "has to name exactly one user of the project"),
    ],
)
def test_verdicts_equal_those_of_openssh_or_are_stricter_on_purpose(
    tmp_path: Path, base: Verified, authority: Person, how: str, options: tuple[str, ...], told: str
) -> None:
    made = certify(tmp_path, authority, "dan", "ed25519", *options)
    try:
        signature = made.sign()
    except subprocess.CalledProcessError:
        assert how == "a host", "ssh-keygen itself refuses to sign with it"
        return
    found = ours(base, signature)
    assert told in found
    theirs = accepted_by_openssh(tmp_path, authority.public, "dan", signature)
    assert (found == "dan") == theirs or (theirs and how in STRICTER), f"openssh: {theirs}, ours: {found}"


def test_an_authority_that_the_ledger_does_not_name_is_none(tmp_path: Path, base: Verified) -> None:
    stranger = people.make(tmp_path, "stranger")
    assert "no authority of the project" in ours(base, certify(tmp_path, stranger, "dan").sign())


def test_a_key_that_the_ledger_names_needs_no_certificate(
    tmp_path: Path, base: Verified, authority: Person, bob: Person
) -> None:
    """A retired user's certificate does not bring the key back, and a user's key does not sign as another."""
    public = tmp_path / "key.pub"
    public.write_text(bob.public + "\n")
    (tmp_path / "key").write_bytes(bob.private.read_bytes())
    (tmp_path / "key").chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-s", authority.private, "-I", "x", "-n", "dan", public], check=True)
    made = Certified(Person("dan", tmp_path / "key"), authority, tmp_path / "key-cert.pub")
    assert "needs no certificate" in ours(base, made.sign())


def test_validity_counts_when_it_is_let_in_and_never_after(tmp_path: Path, base: Verified, authority: Person) -> None:
    old = certify(tmp_path, authority, "dan", "ed25519", "-V", "20200101:20210101")
    signature = old.sign()
    assert "has expired" in ours(base, signature, time.time())
    assert ours(base, signature, 1_600_000_000) == "dan"
    assert ours(base, signature) == "dan", "a history is checked without a clock"
    future = certify(tmp_path / "later", authority, "dan", "ed25519", "-V", "20990101:20990201").sign()
    assert "not valid yet" in ours(base, future, time.time())


def test_commits_are_signed_with_certificates_by_plain_git(
    tmp_path: Path, project: Project, base: Verified, authority: Person
) -> None:
    made = certify(tmp_path, authority, "dan")
    dan = Person("dan", made.person.private, {"user.signingKey": str(made.certificate)})
    project.write("README.md", "by dan")
    project.commit("signed with a certificate", by=dan)
    report = verify.push(project.objects(), KINDS, base, project.head(), Review(now=time.time()))
    assert report.commits[0].signer.user == "dan" and report.commits[0].signer.algorithm == "ssh-ed25519 certificate"
    project.write("project.json", {"name": "shop", "roots": ["alice"]})
    project.commit("the authority is retired")
    head = verify.push(project.objects(), KINDS, report.head, project.head()).head
    project.write("README.md", "by dan again")
    project.commit("signed with a certificate", by=dan)
    with pytest.raises(BadSignatureError, match="no authority of the project"):
        verify.push(project.objects(), KINDS, head, project.head())


def test_only_roots_name_authorities(project: Project, base: Verified, bob: Person, authority: Person) -> None:
    project.write("users/bob.json", {"keys": [bob.public], "policies": ["all"]})
    project.write("policies/all.json", allow("*"))
    project.commit("bob may all that policies give")
    head = verify.push(project.objects(), KINDS, base, project.head()).head
    project.write(
        "project.json", {"name": "shop", "roots": ["alice"], "certificateAuthorities": [authority.public, bob.public]}
    )
    project.commit("one more authority", by=bob)
    with pytest.raises(OwsgitError, match="only roots may change who may sign certificates"):
        verify.push(project.objects(), KINDS, head, project.head())
