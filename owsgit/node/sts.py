"""AWS's Security Token Service, as far as it has a meaning here: who am I, and credentials for a role.

https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from owsgit.aws.api import AccessDeniedError, Caller, Need, ServiceError
from owsgit.aws.credentials import SECONDS, Given, Holder
from owsgit.model.iam.decision import Session
from owsgit.model.state import State

ASSUME_ROLE = "sts:AssumeRole"


class Give(Protocol):
    """Makes credentials for somebody, that are good until then at most. Raises OwsgitError."""

    def __call__(self, holder: Holder, state: State, until: int, /) -> Given: ...


class Sts:
    """The API. Whoever has credentials may ask who they are; a role has to trust whoever takes it on."""

    service = "sts"

    def __init__(self, state: Callable[[], State | None], give: Give) -> None:
        self._state, self._give = state, give

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        """What AssumeRole needs is decided by the role, as it is assumed."""
        return ()

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    async def get_caller_identity(self, caller: Caller) -> Mapping[str, Any]:
        return {"UserId": caller.user_id, "Account": caller.account, "Arn": caller.arn}

    async def get_session_token(self, caller: Caller, *, duration_seconds: int = SECONDS) -> Mapping[str, Any]:
        """Others for those that one has, which are good for no longer than they are."""
        state = self._known()
        if isinstance(caller.who, Session):
            raise AccessDeniedError("Cannot call GetSessionToken with session credentials")
        return {
            "Credentials": _told(self._give(Holder(caller.user, caller.key), state, _until(caller, duration_seconds)))
        }

    async def assume_role(
        self, caller: Caller, *, role_arn: str, role_session_name: str, duration_seconds: int = SECONDS
    ) -> Mapping[str, Any]:
        """Credentials of a session of the role, for an hour at most, and no longer than the caller's own: whoever got
        hold of some cannot go from role to role with them for ever. Raises ServiceError."""
        state = self._known()
        if not caller.user:  # credentials that rest on a function's role rest on no other one
            raise AccessDeniedError(f"{caller.arn} is a function's: that it takes on another role is not built yet")
        role = state.kinds["role"].name_of(role_arn, state.scope)
        session = Session(role or "", role_session_name)
        decision = state.assume(caller.who, session, caller.context)
        if role is None or not decision.allowed:
            raise AccessDeniedError(
                f"User: {caller.arn} is not authorized to perform: {ASSUME_ROLE} on resource: {role_arn}"
            )
        given = self._give(Holder(caller.user, caller.key, session), state, _until(caller, duration_seconds))
        identity = state.identity(session)
        return {
            "Credentials": _told(given),
            "AssumedRoleUser": {"AssumedRoleId": identity["aws:userid"], "Arn": state.caller(session).arn},
        }

    def _known(self) -> State:
        state = self._state()
        if state is None:
            raise ServiceError("ServiceUnavailable", "the ledger is empty", status=503)
        return state


def _until(caller: Caller, seconds: int) -> int:
    return min(int(time.time()) + seconds, caller.expires)


def _told(given: Given) -> Mapping[str, Any]:
    return {
        "AccessKeyId": given.access_key,
        "SecretAccessKey": given.secret,
        "SessionToken": given.token,
        "Expiration": datetime.fromtimestamp(given.expires, UTC),
    }
