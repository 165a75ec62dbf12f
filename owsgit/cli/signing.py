"""Finds the key that the user signs with, and sets git's signing up for one repository."""

import base64
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from owsgit.ledger import sshcert
from owsgit.ledger.repository import GitError, run
from owsgit.model import keys
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError

CERTIFICATE_ENDING = "-cert.pub"
"""What ssh-keygen makes of KEY.pub: KEY-cert.pub."""

SSH_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")


@dataclass(frozen=True)
class SigningKey:
    """A key to sign with: `format` and `setting` are git's gpg.format and user.signingKey."""

    format: str
    setting: str
    public: str
    found: str  # how it was found, for people
    private: Path | None = None  # of an SSH key in a file
    certificate: Path | None = None  # that stands for `user`, for an SSH key that the ledger does not name
    user: str = ""


def discover(folder: Path | None, *, create: bool) -> SigningKey:
    """The key that git is set up with, else the user's SSH key, else (if `create`) a new one.

    Raises UnavailableError where there is none.
    """
    found = _from_git(folder) or _from_home()
    if found is not None:
        return found
    if create:
        return _made()
    raise UnavailableError(
        "no signing key was found: git has no user.signingKey, and there is no key in ~/.ssh",
        remedy="make one: ssh-keygen -t ed25519 (owsgit node init and owsgit init do, where there is none)",
    )


def _git(folder: Path | None, name: str) -> str:
    try:
        return run(folder, "config", "--get", name)
    except GitError:
        return ""


def _from_git(folder: Path | None) -> SigningKey | None:
    setting = _git(folder, "user.signingKey")
    if not setting:
        return None
    if _git(folder, "gpg.format") == "ssh":
        return _ssh_setting(setting)
    exported = subprocess.run(
        [_git(folder, "gpg.program") or "gpg", "--armor", "--export-options", "export-minimal", "--export", setting],
        capture_output=True,
        text=True,
        check=False,
    )
    if not exported.stdout:
        raise OwsgitError(
            f"git signs with the OpenPGP key {setting}, which gpg does not have: {exported.stderr.strip()}",
            remedy="import it, or correct git config user.signingKey",
        )
    return SigningKey("openpgp", setting, exported.stdout, f"git's user.signingKey (OpenPGP {setting})")


def _line(text: str, where: str) -> str:
    """The key as it is written to the ledger. Raises InvalidError for one that would be refused there."""
    try:
        return keys.parse_ssh(text).line
    except keys.KeyFormatError as error:
        raise InvalidError(str(error), file=where, remedy="make another key: ssh-keygen -t ed25519") from None


def _ssh_setting(setting: str) -> SigningKey:
    """user.signingKey may be a path to either half of the key, or the public key itself."""
    literal = setting.removeprefix("key::")
    if literal.startswith(("ssh-", "ecdsa-", "sk-")):
        return SigningKey("ssh", setting, _line(literal, "git's user.signingKey"), "git's user.signingKey")
    path = Path(setting).expanduser()
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        line = public.read_text()
    except OSError as error:
        raise OwsgitError(
            f"git signs with {setting}, but {public} cannot be read: {error.strerror}",
            remedy="correct git config user.signingKey",
        ) from None
    if sshcert.is_certificate(line.split(" ", 1)[0]):
        return _certified(public, line)
    private = public.with_suffix("")
    return SigningKey(
        "ssh",
        str(public),
        _line(line, str(public)),
        f"git's user.signingKey ({public})",
        private if private.exists() else None,
    )


def _certified(path: Path, line: str) -> SigningKey:
    """A certificate that git signs with (user.signingKey ends in -cert.pub)."""
    try:
        certificate = sshcert.parse(base64.b64decode(line.split(" ")[1], validate=True))
    except (OwsgitError, ValueError, IndexError) as error:
        remedy = "get another one: ssh-keygen -s CA -I ID -n USER KEY.pub"
        raise InvalidError(str(error), file=str(path), remedy=remedy) from None
    private = path.with_name(path.name.removesuffix(CERTIFICATE_ENDING))
    found = f"git's user.signingKey ({path}, for {', '.join(certificate.principals)})"
    present = private if private.exists() else None
    return SigningKey("ssh", str(path), certificate.key.line, found, present, path, certificate.principals[0])


def _from_home() -> SigningKey | None:
    for name in SSH_NAMES:
        public = Path.home() / ".ssh" / f"{name}.pub"
        if public.exists():
            return SigningKey(
                "ssh", str(public), _line(public.read_text(), str(public)), str(public), public.with_suffix("")
            )
    return None


def _made() -> SigningKey:
    if shutil.which("ssh-keygen") is None:
        raise UnavailableError("ssh-keygen is not installed", remedy="install openssh-client")
    path = Path.home() / ".ssh" / "id_ed25519"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    public = path.with_suffix(".pub")
    return SigningKey(
        "ssh", str(public), _line(public.read_text(), str(public)), f"{public}, made now, without passphrase", path
    )


def login_key() -> str | None:
    """The SSH key that the user logs in with, for those who sign with OpenPGP."""
    found = _from_home()
    return found.public if found else None


def settings(key: SigningKey) -> list[tuple[str, str]]:
    """git's settings for signing with `key`."""
    return [("gpg.format", key.format), ("user.signingKey", key.setting), ("commit.gpgSign", "true")]


def author(folder: Path) -> list[tuple[str, str]]:
    """Settings for the author, where git has none."""
    missing = []
    login = os.environ.get("USER") or os.environ.get("LOGNAME") or "root"
    if not _git(folder, "user.name"):
        missing.append(("user.name", login))
    if not _git(folder, "user.email"):
        missing.append(("user.email", f"{login}@localhost"))
    return missing
