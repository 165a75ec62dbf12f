"""Votes that anybody can count, also with OpenSSH's own tool."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from owsgit.ledger import sshsig
from owsgit.model import keys
from owsgit.model.errors import InvalidError
from owsgit.peers import certificates
from owsgit.peers.certificates import Certificate, CertificateError
from owsgit.peers.members import Member
from owsgit.peers.paxos import Ballot, Electorate, Instance

HEAD, NEXT, OTHER = "1" * 40, "2" * 40, "3" * 40


class Voter:
    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        line = self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self.public = keys.parse_ssh(line)
        self.member = Member(self.public.fingerprint, "x", self.public, "127.0.0.1", 1)

    def vote(self, value: str = NEXT, instance: Instance = Instance(HEAD)) -> tuple[str, str]:
        return self.public.fingerprint, certificates.sign(self.key, instance, BALLOT, value)


VOTERS = [Voter() for _ in range(3)]
MEMBERS = {voter.public.fingerprint: voter.member for voter in VOTERS}
ELECTORATE = Electorate.majority(MEMBERS)
BALLOT = Ballot(1, VOTERS[0].public.fingerprint)


def certificate(*votes: tuple[str, str], value: str = NEXT) -> Certificate:
    return Certificate(Instance(HEAD), BALLOT, value, dict(votes))


def test_the_votes_of_a_majority_decide() -> None:
    made = certificate(VOTERS[0].vote(), VOTERS[2].vote())
    made.check(ELECTORATE, MEMBERS)
    assert certificates.parse(made.text()) == made


@pytest.mark.parametrize(
    "votes",
    [
        [],
        [VOTERS[0].vote()],
        [VOTERS[0].vote(), VOTERS[1].vote(OTHER)],
        [VOTERS[0].vote(), VOTERS[1].vote(NEXT, Instance(HEAD, "a" * 64))],
        [VOTERS[0].vote(), VOTERS[1].vote(NEXT, Instance(OTHER))],
        [VOTERS[0].vote(), (VOTERS[1].public.fingerprint, VOTERS[0].vote()[1])],
        [VOTERS[0].vote(), Voter().vote()],
    ],
    ids=["none", "one", "another value", "another recovery", "another head", "one vote twice", "no member"],
)
def test_anything_less_does_not(votes: list[tuple[str, str]]) -> None:
    with pytest.raises(CertificateError, match="good votes"):
        certificate(*votes).check(ELECTORATE, MEMBERS)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"head": 5}', '{"head": "x", "ballot": [1, "y"], "value": "z", "votes": {}}',
     '{{"head": "{}", "ballot": [0, "SHA256:{}"], "value": "{}", "votes": {{}}}}'.format(HEAD, "a" * 43, NEXT),
     '{{"head": "{}", "ballot": [1, "SHA256:{}"], "value": "{}", "votes": {{}}, "more": 1}}'.format(HEAD, "a" * 43, NEXT),
     '{{"head": "{}\\n", "ballot": [1, "SHA256:{}"], "value": "{}", "votes": {{}}}}'.format(HEAD, "a" * 43, NEXT)],
)  # fmt: skip
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        certificates.parse(text)


def test_openssh_takes_a_vote_as_a_signature(tmp_path: Path) -> None:
    voter = VOTERS[0]
    _, signature = voter.vote()
    armoured = sshsig.armour(voter.public, certificates.NAMESPACE, base64.b64decode(signature))
    (tmp_path / "vote.sig").write_bytes(armoured)
    (tmp_path / "allowed").write_text(f"node {voter.public.line}\n")
    command = ["ssh-keygen", "-Y", "verify", "-n", "owsgit-vote", "-I", "node", "-f", "allowed", "-s", "vote.sig"]
    good = certificates.statement(Instance(HEAD), BALLOT, NEXT)
    assert subprocess.run(command, cwd=tmp_path, input=good, capture_output=True).returncode == 0
    bad = certificates.statement(Instance(HEAD), BALLOT, OTHER)
    assert subprocess.run(command, cwd=tmp_path, input=bad, capture_output=True).returncode != 0
    assert sshsig.verify(good, armoured, certificates.NAMESPACE) == voter.public
