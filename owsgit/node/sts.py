"""AWS's Security Token Service, as far as it has a meaning here: who am I, and credentials for a role.

https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from owsgit.aws.api import AccessDeniedError, Caller, Need, ServiceError
from owsgit.aws.credentials import SECONDS, Given, Holder
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Session
from owsgit.model.state import State

ASSUME_ROLE = "sts:AssumeRole"


class Sts:
    """The API. Whoever has credentials may ask who they are; a role has to trust whoever takes it on."""

    service = "sts"

    def __init__(self, state: Callable[[], State | None], give: Callable[[Holder, State], Given]) -> None:
        """`give` makes credentials; it raises OwsgitError."""
        self._state, self._give = state, give

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        """What AssumeRole needs is decided by the role, as it is assumed."""
        return ()

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    async def get_caller_identity(self, caller: Caller) -> Mapping[str, Any]:
        return {"UserId": caller.user_id, "Account": caller.account, "Arn": caller.arn}

    async def get_session_token(self, caller: Caller, *, duration_seconds: int = SECONDS) -> Mapping[str, Any]:
        """Credentials last an hour, whatever is asked for."""
        state = self._known()
        if isinstance(caller.who, Session):
            raise AccessDeniedError("Cannot call GetSessionToken with session credentials")
        return {"Credentials": _told(self._give(Holder(caller.user, caller.key), state))}

    async def assume_role(
        self, caller: Caller, *, role_arn: str, role_session_name: str, duration_seconds: int = SECONDS
    ) -> Mapping[str, Any]:
        """Credentials of a session of the role, for an hour at most. Raises ServiceError."""
        state = self._known()
        if not caller.user:  # credentials that rest on a function's role rest on no other one
            raise AccessDeniedError(f"{caller.arn} is a function's: that it takes on another role is not built yet")
        role = state.kinds["role"].name_of(role_arn, state.scope)
        session = Session(role or "", role_session_name)
        decision = state.assume(caller.who, session, Context.of({"aws:SourceIp": caller.address}))
        if role is None or not decision.allowed:
            raise AccessDeniedError(
                f"User: {caller.arn} is not authorized to perform: {ASSUME_ROLE} on resource: {role_arn}"
            )
        given = self._give(Holder(caller.user, caller.key, session), state)
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


def _told(given: Given) -> Mapping[str, Any]:
    return {
        "AccessKeyId": given.access_key,
        "SecretAccessKey": given.secret,
        "SessionToken": given.token,
        "Expiration": datetime.fromtimestamp(given.expires, UTC),
    }
