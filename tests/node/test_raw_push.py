"""git's own protocol from hostile hands: pkt-lines, capabilities, commands and packs that no git would send."""

import os
import random
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import serve
from tests.support import nodes
from tests.support.nodes import Node
from tests.support.people import Person
from tests.support.projects import Project

SEEDS = 400 if os.environ.get("OWSGIT_SOAK") else 24
ZERO = "0" * 40


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("raw")
    node = Node(folder / "node", alice)
    yield serve(folder / "shop", alice, bob, node), node
    node.stop()


def line(data: bytes) -> bytes:
    return b"%04x" % (len(data) + 4) + data


def said(node: Node, data: bytes, by: Person) -> bytes:
    """What the node answers when these bytes come to its git-receive-pack, and it comes to an end."""
    ssh = by.environment["GIT_SSH_COMMAND"].split()
    command = [*ssh, "-p", str(node.port), node.address, "git-receive-pack 'shop'"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    answer = done.stdout + done.stderr
    assert b"Traceback" not in answer, answer
    return answer


def pack_of(project: Project, old: str, new: str) -> bytes:
    return subprocess.run(["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=project.folder,
                          input=f"{new}\n^{old}\n".encode(), capture_output=True, check=True).stdout  # fmt: skip


def test_hostile_bytes_move_nothing_and_hang_nobody(here: tuple[Project, Node]) -> None:
    project, node = here
    old = node.main()
    project.write("README.md", "never let in as it is")
    new = project.commit(signed=False)
    pack = pack_of(project, old, new)
    capabilities = b"\0 report-status side-band-64k push-options agent=x"
    good = line(f"{old} {new} refs/heads/main".encode() + capabilities) + b"0000" + line(b"no-wait") + b"0000" + pack
    for seed in range(SEEDS):
        chance = random.Random(seed)
        data = bytearray(good)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(min(len(data), 400))
            match chance.randrange(5):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(30)]
                case 2:
                    data[at:at] = chance.choice(
                        (b"0000", b"0001", b"0002", b"ffff", b"zzzz", b"\0", b"\n", b"refs/heads/main")
                    )
                case 3:
                    data[at:at] = line(
                        f"{ZERO} {new} refs/heads/{chance.choice(('main', 'x', '../x', 'main/y'))}".encode()
                    )
                case _:
                    data = data[: chance.randrange(len(data))]
            if not data:
                break
        said(node, bytes(data), project.owner)
        assert node.main() == old
    for extra in (
        line(f"{old} {new} refs/heads/main".encode() + capabilities) + line(f"{old} {new} refs/heads/main".encode()),
        line(f"{old} {new} refs/heads/main\n{old} {new} refs/heads/main".encode() + capabilities),
        line(f"{old} {new} refs/for/main".encode() + capabilities),
        line(f"{old} {ZERO} refs/heads/main".encode() + capabilities),
        line(f"{ZERO} {new} refs/approvals/{new}".encode() + capabilities),
        line(f"{ZERO} {new} refs/notes/owsgit/votes".encode() + capabilities),
        line(b"shallow " + old.encode()) + line(f"{old} {new} refs/heads/main".encode() + capabilities),
        line(b"push-cert\0" + capabilities) + line(b"certificate version 0.1\n") + line(b"push-cert-end\n"),
    ):
        answer = said(node, extra + b"0000" + line(b"no-wait") + b"0000" + pack, project.owner)
        assert node.main() == old, answer
    log = node.log.read_text()
    assert "Traceback" not in log
    project.git("reset", "-q", "--hard", old)
    project.write("README.md", "an honest push")
    project.commit()
    assert nodes.push(project, node).status == 0, "the node is as it was"
