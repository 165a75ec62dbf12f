"""The front door of `owsgit up`: AWS's SDKs talk to the working tree as they talk to a node.

There is nobody to log in: whoever runs it has a key of theirs, in a file that only they can read. It stays the same, so
that it can be written into a profile or an editor's settings once.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from owsgit.aws.api import Api
from owsgit.aws.credentials import Given, Holder
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Credential, CredentialError, Site
from owsgit.model.state import State
from owsgit.node.front_door import FrontDoor
from owsgit.node.sts import Sts


class LocalDoor:
    """On one port of this machine alone."""

    def __init__(self, site: Site, apis: Iterable[Api], port: int, state: Callable[[], State | None]) -> None:
        self._state, self._port = state, port
        self._access_key, self._secret = _kept(site.home / "credentials.json")
        self._door = FrontDoor(
            replace(site, credential=self._credential),
            [*apis, Sts(state, _gives_none)],
            site.listen,
            port,
            "--aws-port",
        )

    async def open(self) -> None:
        """Raises UnavailableError if another program has the port."""
        try:
            await self._door.open()
        except UnavailableError as error:
            raise UnavailableError(
                error.problems[0].message, remedy="choose another for AWS's SDKs: --aws-port PORT; 0 is none"
            ) from None

    async def close(self) -> None:
        await self._door.close()

    def settings(self, region: str) -> dict[str, str]:
        """What programs with an SDK need in their environment."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_REGION": region,
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret,
        }

    def _credential(self, token: str) -> Credential:
        """The first root of the project: what others may is tried with a node."""
        state = self._state()
        if state is None or token:
            raise CredentialError("these are not the credentials that owsgit up has told")
        who = state.project.roots[0]
        return Credential(
            access_key=self._access_key,
            secret=self._secret,
            who=who,
            arn=state.caller(who).arn,
            user_id=state.identity(who)["aws:userid"],
            issued=int(time.time()),
        )


def _gives_none(holder: Holder, state: State, until: int, /) -> Given:
    raise UnavailableError("credentials of roles are given by the nodes of a project alone")


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
