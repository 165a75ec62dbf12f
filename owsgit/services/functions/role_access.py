"""What a function with a role gets, so that an AWS SDK in it works unchanged: the role's credentials, the endpoint.

The SDK fetches the credentials from inside of the worker's own network, and new ones before they expire: a worker may
live longer than an hour. The front door is there as well, whatever `network` says.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.runtime.config import INNER_ADDRESS, Inner
from owsgit.runtime.role_endpoint import PATH, RoleEndpoint
from owsgit.services.functions.aliases import LATEST
from owsgit.services.functions.spec import FunctionSpec

DOOR_PORT = 4566
CREDENTIALS_PORT = 4565
"""Inside of a worker's network."""

CREDENTIALS_ADDRESS = "127.0.0.1"
"""Older SDKs, those of Node.js and Python among them, ask no other address of loopback for credentials."""

TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - the name of a variable
ADDRESS = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
FRESH_SECONDS = 1200.0
"""Credentials are handed out again for so long: SDKs take those that are good for another 15 minutes."""


@dataclass(frozen=True)
class RoleAccess:
    """Of one version of a function: variables, what is masked in logs, and what is served in its workers' networks."""

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    inner: tuple[Inner, ...] = ()

    @classmethod
    def of(cls, site: Site, resource: Resource, version: str) -> "RoleAccess":
        """Nothing for functions without a role, or that have no network of their own."""
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        none = spec.role is None or spec.family == "wasm" or site.settings.get("sandbox") == "none"
        if none or site.door() is None:
            return cls()
        assert spec.role is not None
        token = secrets.token_urlsafe(32)
        commit = "" if version == LATEST else version
        fetched = _Fetched(partial(site.role_credentials, resource.name, commit, spec.role))
        return cls(
            {
                ADDRESS: f"http://{CREDENTIALS_ADDRESS}:{CREDENTIALS_PORT}{PATH.decode()}",
                "AWS_ENDPOINT_URL": f"http://{INNER_ADDRESS}:{DOOR_PORT}",
            },
            {TOKEN: token},
            (
                Inner(DOOR_PORT, to=partial(_door, site)),
                Inner(
                    CREDENTIALS_PORT,
                    serve=lambda listener: RoleEndpoint(listener, token, fetched.get),
                    address=CREDENTIALS_ADDRESS,
                ),
            ),
        )


def _door(site: Site) -> tuple[str, int]:
    """Where it is now. Raises OSError."""
    found = site.door()
    if found is None:
        raise OSError("this node has no front door")
    return found


class _Fetched:
    """The credentials of all workers of a version: made anew in time, and once for whoever asks meanwhile."""

    def __init__(self, make: Callable[[], Mapping[str, str]]) -> None:
        self._make = make
        self._given: Mapping[str, str] = {}
        self._until = 0.0
        self._making = asyncio.Lock()

    async def get(self) -> Mapping[str, str]:
        """Raises OwsgitError."""
        async with self._making:
            if time.monotonic() >= self._until:
                self._given = await asyncio.to_thread(self._make)
                self._until = time.monotonic() + FRESH_SECONDS
            return self._given


def without(variables: Mapping[str, str]) -> dict[str, str]:
    """What of a worker's secret variables is not of its role."""
    return {name: value for name, value in variables.items() if name != TOKEN}
