"""A history with its votes, as a clone has it: forged notes neither hang anybody nor get in."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from owsgit.model import keys
from owsgit.peers import certificates, history
from owsgit.peers.certificates import Certificate, CertificateError
from owsgit.peers.paxos import Ballot, Instance
from owsgit.services import KINDS
from tests.support import projects
from tests.support.people import Person
from tests.support.projects import Project

KEY = Ed25519PrivateKey.generate()
LINE = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
NODE = keys.parse_ssh(LINE).fingerprint


def vote(head: str, value: str, *, signed: bool = True) -> Certificate:
    ballot = Ballot(1, NODE)
    signature = certificates.sign(KEY, Instance(head), ballot, value)
    return Certificate(Instance(head), ballot, value, {NODE: signature} if signed else {})


@pytest.fixture
def made(tmp_path: Path, alice: Person) -> tuple[Project, list[str]]:
    project = projects.create(tmp_path / "shop", alice, files={"nodes/a.json": {"key": LINE, "address": "127.0.0.1"}})
    commits = [project.head()]
    for number in range(3):
        project.write("README.md", f"{number}\n")
        commits.append(project.commit())
    return project, commits


def walk(project: Project, tip: str, votes: list[Certificate]) -> history.Decided:
    by_value = {each.value: each for each in votes}
    return history.walk(project.objects(), KINDS, tip, by_value, {}, lambda _: None)[1]


def test_only_certificates_that_were_checked_count(made: tuple[Project, list[str]]) -> None:
    """A forged one for what would come next is not among them: a node that joins would follow it."""
    project, commits = made
    good = [vote(commits[0], commits[1]), vote(commits[1], commits[2])]
    forged = vote(commits[2], commits[3], signed=False)
    decided = walk(project, commits[2], [*good, forged])
    assert list(decided.chain) == good and decided.open == 0
    with pytest.raises(CertificateError, match="0 good votes"):
        walk(project, commits[3], [*good, forged])


def test_certificates_that_lead_in_a_circle_end(made: tuple[Project, list[str]]) -> None:
    project, commits = made
    circle = [vote(commits[2], commits[3]), vote(commits[3], commits[2])]
    with pytest.raises(CertificateError, match="circle"):
        walk(project, commits[3], circle)


def test_another_way_than_the_decided_one_is_told(made: tuple[Project, list[str]]) -> None:
    """clone, join and verify --decided refuse it; to plain verify it is somebody's own work while main moved on."""
    project, commits = made
    votes = [vote(commits[0], commits[1]), vote(commits[1], commits[3])]
    assert walk(project, commits[3], votes).fork == "" and walk(project, commits[1], votes).fork == ""
    assert walk(project, commits[2], votes).fork == "", "an older revision, within what was decided as one"
    project.git("reset", "-q", "--hard", commits[1])
    project.write("README.md", "another way\n")
    other = project.commit()
    told = walk(project, other, votes).fork
    assert f"decided on {commits[3][:10]} after {commits[1][:10]}, and this history goes on with {other[:10]}" in told
    unseen = [votes[0], vote(commits[1], "f" * 40)]
    assert "decided on ffffffffff" in walk(project, other, unseen).fork, "also where it is not even here"
    assert walk(project, commits[1], unseen).fork == "", "what is newer than this clone contradicts nothing"
