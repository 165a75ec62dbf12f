"""AWS's Security Token Service, as far as it has a meaning here: who am I, and credentials for a role.

https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from owsgit.aws.api import AccessDeniedError, Caller, Need, ServiceError
from owsgit.aws.credentials import SECONDS, Given, Holder, session_policy
from owsgit.model.errors import InvalidError
from owsgit.model.iam.decision import Session
from owsgit.model.state import State

ASSUME_ROLE = "sts:AssumeRole"
POLICY_CHARACTERS_MAX = 2048
POLICIES_MAX = 10
"""What AWS takes of a session's policies. https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""

_TOO_LONG = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
_TOO_LONG_CHAINED = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."


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
        self,
        caller: Caller,
        *,
        role_arn: str,
        role_session_name: str,
        duration_seconds: int = SECONDS,
        policy: str = "",
        policy_arns: Sequence[Mapping[str, str]] = (),
        external_id: str | None = None,
    ) -> Mapping[str, Any]:
        """Credentials of a session of the role, for an hour at most, and no longer than the caller's own: whoever got
        hold of some cannot go from role to role with them for ever. Raises ServiceError."""
        state = self._known()
        if duration_seconds > SECONDS:
            chained = isinstance(caller.who, Session)
            raise ServiceError("ValidationException", _TOO_LONG_CHAINED if chained else _TOO_LONG)
        role = state.kinds["role"].name_of(role_arn, state.scope)
        session = Session(role or "", role_session_name)
        context = caller.context
        if external_id is not None:
            context = context.with_values({"sts:ExternalId": external_id})
        decision = state.assume(caller.who, session, context)
        if role is None or not decision.allowed:
            raise AccessDeniedError(
                f"User: {caller.arn} is not authorized to perform: {ASSUME_ROLE} on resource: {role_arn}"
            )
        holder = Holder(
            caller.user,
            caller.key,
            session,
            caller.function,
            caller.commit,
            caller.function_role,
            _bounding(policy),
            tuple(_named(state, policy_arns)),
        )
        given = self._give(holder, state, _until(caller, duration_seconds))
        identity = state.identity(session)
        packed = {"PackedPolicySize": _packed(policy, policy_arns)} if policy or policy_arns else {}
        return {
            "Credentials": _told(given),
            "AssumedRoleUser": {"AssumedRoleId": identity["aws:userid"], "Arn": state.caller(session).arn},
            **packed,
        }

    def _known(self) -> State:
        state = self._state()
        if state is None:
            raise ServiceError("ServiceUnavailable", "the ledger is empty", status=503)
        return state


def _bounding(policy: str) -> str:
    """A session's policy that says something. Raises ServiceError."""
    if len(policy) > POLICY_CHARACTERS_MAX:
        raise ServiceError(
            "PackedPolicyTooLarge", f"The policy has {len(policy):,} of at most {POLICY_CHARACTERS_MAX:,} characters"
        )
    try:
        if policy:
            session_policy(policy)
    except InvalidError as error:
        raise ServiceError("MalformedPolicyDocument", error.problems[0].message) from None
    return policy


def _named(state: State, arns: Sequence[Mapping[str, str]]) -> Iterable[str]:
    """The names of managed policies. Raises ServiceError."""
    if len(arns) > POLICIES_MAX:
        raise ServiceError("PackedPolicyTooLarge", f"A session takes at most {POLICIES_MAX} managed policies")
    for each in arns:
        arn = each.get("arn", "")
        name = state.kinds["policy"].name_of(arn, state.scope)
        if name is None or state.get("policy", name) is None:
            raise ServiceError("ValidationException", f"PolicyArn {arn} does not exist or is not attachable")
        yield name


def _packed(policy: str, arns: Sequence[Mapping[str, str]]) -> int:
    """Percent of what a session takes."""
    return max(1, 100 * len(policy) // POLICY_CHARACTERS_MAX, 100 * len(arns) // POLICIES_MAX)


def _until(caller: Caller, seconds: int) -> int:
    return min(int(time.time()) + seconds, caller.expires)


def _told(given: Given) -> Mapping[str, Any]:
    return {
        "AccessKeyId": given.access_key,
        "SecretAccessKey": given.secret,
        "SessionToken": given.token,
        "Expiration": datetime.fromtimestamp(given.expires, UTC),
    }
