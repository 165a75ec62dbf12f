"""People with real OpenSSH keys, who commit and push with plain git."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from owsgit.model import keys

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("GIT_", "SSH_", "OWSGIT_")) and name not in ("XDG_CONFIG_HOME", "GNUPGHOME")
}


@dataclass
class Person:
    """Somebody with a key, and how git is to be run as them."""

    name: str
    private: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def public(self) -> str:
        return keys.parse_ssh(self.private.with_suffix(".pub").read_text()).line

    @property
    def environment(self) -> dict[str, str]:
        settings = {
            "gpg.format": "ssh",
            "user.signingKey": str(self.private.with_suffix(".pub")),
            "user.name": self.name,
            "user.email": f"{self.name}@example.com",
            "init.defaultBranch": "main",
            "protocol.file.allow": "always",
            "advice.pushFetchFirst": "true",
            **self.extra,
        }
        counted = {f"GIT_CONFIG_KEY_{index}": key for index, key in enumerate(settings)}
        counted |= {f"GIT_CONFIG_VALUE_{index}": value for index, value in enumerate(settings.values())}
        ssh = (
            f"ssh -i {self.private} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no "
            "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"  # another node of the tests may have had this port
        )
        return {
            **CLEAN,
            "HOME": str(self.private.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_SSH_COMMAND": ssh,
            **counted,
        }


def make(folder: Path, name: str, algorithm: str = "ed25519") -> Person:
    """A person with a new key in `folder`/`name`."""
    home = folder / name
    home.mkdir(mode=0o700, parents=True)
    private = home / "key"
    kind, _, bits = algorithm.partition(":")
    size = ["-b", bits] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", name, "-f", private], check=True)
    return Person(name, private)


def sign(person: Person, payload: bytes, *, namespace: str = "git", hash_name: str = "sha512") -> bytes:
    """An armoured SSH signature, by ssh-keygen."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-O", f"hashalg={hash_name}", "-f", str(person.private)],
        input=payload,
        capture_output=True,
        check=True,
    )
    return done.stdout
