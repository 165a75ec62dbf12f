"""The front door of `owsgit up`: AWS's SDKs talk to the working tree as they talk to a node.

There is nobody to log in: whoever runs it has a key of theirs, in a file that only they can read. It stays the same, so
that it can be written into a profile or an editor's settings once. Roles have temporary credentials as those of a node
are; they are good as long as it runs.
"""

import contextlib
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from owsgit.aws import credentials
from owsgit.aws.api import Api
from owsgit.aws.credentials import SECONDS, Desk, Given, Holder
from owsgit.model import keys
from owsgit.model.change import Change
from owsgit.model.core import NodeSpec
from owsgit.model.errors import UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.service import Credential, CredentialError, Site
from owsgit.model.state import State
from owsgit.node.front_door import FrontDoor
from owsgit.node.sts import Sts

DEVELOPER = "developer"
"""Stands for the key that nobody logged in with."""

ADDRESS = "owsgit-up.invalid"
"""Of the node that gives credentials, where no other is."""


class LocalDoor:
    """On one port of this machine alone. It gives and checks credentials before it is open."""

    def __init__(self, home: Path, state: Callable[[], State | None]) -> None:
        self._working_state = state
        self._access_key, self._secret = _kept(home / "credentials.json")
        self._key = Ed25519PrivateKey.generate()
        line = self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self._public = keys.parse_ssh(line)
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        self._desk = Desk(private, self._state, self._user_of)
        self._known: tuple[State, State] | None = None
        self._front: FrontDoor | None = None

    async def open(self, site: Site, apis: Iterable[Api], port: int) -> None:
        """Raises UnavailableError if another program has the port."""
        front = FrontDoor(site, [*apis, Sts(self._state, self._give)], site.listen, port, "--aws-port")
        try:
            await front.open()
        except UnavailableError as error:
            await front.close()
            raise UnavailableError(
                error.problems[0].message, remedy="choose another for AWS's SDKs: --aws-port PORT; 0 is none"
            ) from None
        self._front = front

    async def close(self) -> None:
        if self._front is not None:
            await self._front.close()

    def address(self) -> tuple[str, int] | None:
        """Where functions reach it."""
        return self._front.inner if self._front is not None else None

    def settings(self, region: str) -> dict[str, str]:
        """What programs with an SDK need in their environment."""
        assert self._front is not None
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._front.address[1]}",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,  # the name that boto3 and the first version of the CLI go by
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret,
        }

    def credential(self, token: str) -> Credential:
        """Without a token the first root of the project: what other users may is tried with a node."""
        if token:
            return self._desk.check(token)
        state = self._state()
        if state is None:
            raise CredentialError("the working tree is not valid yet")
        who = state.project.roots[0]
        now = int(time.time())
        return Credential(
            access_key=self._access_key,
            secret=self._secret,
            who=who,
            arn=state.caller(who).arn,
            user_id=state.identity(who)["aws:userid"],
            issued=now,
            expires=now + SECONDS,
            user=who,
            key=DEVELOPER,
        )

    def role_credentials(self, function: str, commit: str, role: str) -> Mapping[str, str]:
        """As the SDKs' container provider takes them. Raises OwsgitError."""
        state = self._state()
        if state is None:
            raise UnavailableError("the working tree is not valid yet")
        given = self._give(Holder.of_function(function, commit, role), state)
        self._desk.check(given.token)  # the working tree may not give it the role any more
        return given.document("Token")

    def _give(self, holder: Holder, state: State, until: int | None = None, /) -> Given:
        return credentials.give(holder, self._key, self._public, state, time.time(), until)

    def _user_of(self, fingerprint: str) -> str | None:
        state = self._state()
        return state.project.roots[0] if state is not None and fingerprint == DEVELOPER else None

    def _state(self) -> State | None:
        """The working tree's, with this as one of its nodes: credentials are a node's word."""
        state = self._working_state()
        if state is None:
            return None
        if self._known is None or self._known[0] is not state:
            kind = state.kinds["node"]
            name = next(each for each in map("up{}".format, itertools.count()) if state.get(kind.name, each) is None)
            spec = NodeSpec.model_validate({"key": self._public.line, "address": ADDRESS})
            self._known = state, state.after([Change(None, Resource(kind, name, spec, ""))], trusted=True)
        return self._known[1]


def _kept(file: Path) -> tuple[str, str]:
    """The access key and its secret, made once."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found: dict[str, Any] = json.loads(file.read_text())
        return str(found["accessKey"]), str(found["secret"])
    access_key, secret = f"AKIALOCAL{secrets.token_hex(5).upper()}", secrets.token_urlsafe(30)
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
        json.dump({"accessKey": access_key, "secret": secret}, made)
    return access_key, secret
