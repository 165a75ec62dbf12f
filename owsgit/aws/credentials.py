"""Temporary credentials: AWS's three values, which every node can check by itself.

The session token is a statement of the node that gave it: who it is for, until when, and the secret key, sealed (age)
to the keys of all nodes of the ledger. The node signs it with its own key. So there is nothing to keep and nothing to
carry between nodes; and who is taken out of the ledger, or whose node is, is out at once, as each request is held
against the ledger.

    base64url( JSON statement + 64 bytes of signature )
"""

import base64
import binascii
import hashlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from owsgit.aws.sigv4 import TOKEN_CHARACTERS_MAX
from owsgit.ledger import sshsig
from owsgit.model import keys
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.iam.decision import AttachedPolicy, Session
from owsgit.model.iam.document import PolicySpec
from owsgit.model.service import Credential, CredentialError
from owsgit.model.state import State

NAMESPACE = b"owsgit-credentials"
"""Keeps a node's word on credentials from being taken for anything else."""

SECONDS = 3600
"""For how long credentials are good."""

SKEW_SECONDS_MAX = 300
"""How far nodes' clocks may differ."""

OPENED_MAX = 10_000
"""Tokens that a node remembers."""

DIGESTS_MAX = 256
"""Tokens whose digest it need not work out again: these are kept whole, and may be long."""

HELD_SECONDS = 1.0
"""For how long it holds what was found out about a token, unless the ledger changes: keys may end by time as well."""

SIGNATURE_BYTES = 64
USERS_SESSIONS = "owsgit"
"""What the names of users' sessions begin with."""

SESSION_POLICY = "the policy of the session"
"""Where its statements are said to be: in no file."""

PREFIX = "ASIA"
"""What the access keys of temporary credentials begin with on AWS."""


@dataclass(frozen=True)
class Given:
    """Credentials as they go to their user. The repr tells no secret."""

    access_key: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expires: int  # seconds since 1970

    def document(self, token: str) -> dict[str, str]:
        """As the SDKs take them, from a process (the member `token` is SessionToken) or a container (Token)."""
        return {
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret,
            token: self.token,
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.expires)),
        }


@dataclass(frozen=True)
class Holder:
    """Whom credentials are for: a user, what logged in (a key's fingerprint), and the role that was taken on.

    Or a function with its role; then there is no user. `commit` is that of its version, "" for the one at the head;
    `function_role` is its own role where it took on one, "" for a session of its own.

    The session's own policies are `policy`, in JSON, and managed ones by name.
    """

    user: str
    key: str
    session: Session | None = None
    function: str = ""
    commit: str = ""
    function_role: str = ""
    policy: str = ""
    policy_names: tuple[str, ...] = ()

    @classmethod
    def of_function(cls, function: str, commit: str, role: str) -> "Holder":
        return cls("", "", Session(role, function_session(function)), function, commit)


def function_session(function: str) -> str:
    """The name of a function's sessions: its own, as on AWS; never one that a user's sessions have."""
    if not function.startswith(USERS_SESSIONS):
        return function
    return f"lambda+{function[:40]}+{hashlib.sha256(function.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class _Statement:
    """What a token says, once its signature was found to be good."""

    holder: Holder
    access_key: str
    secret: str = field(repr=False)
    policy: PolicySpec | None = None  # the session's, read
    node: str = ""  # fingerprint of the key that signed
    project: str = ""  # the id of its genesis commit
    issued: int = 0
    expires: int = 0


@dataclass(frozen=True)
class _Held:
    """What a token was found to stand for, by a state of the ledger, from one time (seconds since 1970) to another."""

    state: State
    at: float
    until: float
    credential: Credential


def give(
    holder: Holder, key: Ed25519PrivateKey, own: keys.SshKey, state: State, now: float, until: int | None = None
) -> Given:
    """New credentials, by the node with `key`; good until `until` at most, which is in seconds since 1970.

    Raises UnavailableError if the project has too many nodes for them.
    """
    access_key = PREFIX + base64.b32encode(secrets.token_bytes(10)).decode()
    secret = base64.b64encode(secrets.token_bytes(30)).decode()
    recipients = [pyrage.ssh.Recipient.from_str(line) for line in _nodes(state)]
    expires = int(now) + SECONDS if until is None else min(int(now) + SECONDS, until)
    said = {
        "accessKey": access_key,
        "user": holder.user,
        "key": holder.key,
        "role": holder.session.role if holder.session else None,
        "session": holder.session.name if holder.session else None,
        "function": holder.function,
        "commit": holder.commit,
        "functionRole": holder.function_role,
        "policy": holder.policy,
        "policyNames": list(holder.policy_names),
        "node": own.fingerprint,
        "project": state.genesis,
        "issued": int(now),
        "expires": expires,
        "secret": base64.b64encode(pyrage.encrypt(secret.encode(), recipients)).decode(),
    }
    text = json.dumps(said, separators=(",", ":")).encode()
    token = base64.urlsafe_b64encode(text + sshsig.sign_bare(key, NAMESPACE, text)).decode()
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise UnavailableError("the project has too many nodes for credentials that all of them can check")
    return Given(access_key, secret, token, expires)


def _nodes(state: State) -> Iterable[str]:
    for node in state.of_kind("node"):
        assert isinstance(node.spec, NodeSpec)
        yield node.spec.key


class Desk:
    """Checks credentials at one node."""

    def __init__(self, private: bytes, state: Callable[[], State | None], user_of: Callable[[str], str | None]) -> None:
        """`private` is the node's key as OpenSSH writes it; `user_of` says whose a key is now, by its fingerprint."""
        self._identity = pyrage.ssh.Identity.from_buffer(private)
        self._state, self._user_of = state, user_of
        self._opened: OrderedDict[bytes, _Statement] = OrderedDict()
        self._digests: dict[str, bytes] = {}  # of tokens that were used of late
        self._held: dict[bytes, _Held] = {}  # of tokens that are used again and again

    def check(self, token: str) -> Credential:
        """What a session token stands for now. Raises CredentialError."""
        state = self._state()
        digest = self._digests.get(token)
        if digest is None:
            digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
            if len(self._digests) >= DIGESTS_MAX:
                self._digests.clear()
            self._digests[token] = digest
        now = time.time()
        held = self._held.get(digest)
        if held is not None and held.state is state and held.at <= now < held.until:
            return held.credential
        said = self._opened.get(digest)
        if state is None:
            raise CredentialError("the ledger is empty")
        if said is None:
            said = self._opened[digest] = self._open(token, state)
            if len(self._opened) > OPENED_MAX:
                self._opened.popitem(last=False)
        else:
            self._opened.move_to_end(digest)
        self._hold_against(said, state)
        credential = _credential(said, state)
        if len(self._held) >= OPENED_MAX:
            self._held.clear()
        self._held[digest] = _Held(state, now, min(now + HELD_SECONDS, said.expires), credential)
        return credential

    def _hold_against(self, said: _Statement, state: State) -> None:
        """Raises CredentialError unless the ledger still knows all that the statement rests on."""
        now = time.time()
        if said.project != state.genesis:
            raise CredentialError("they are of another project")
        if now >= said.expires:
            raise CredentialError("they have expired", expired=True)
        if said.issued > now + SKEW_SECONDS_MAX or said.expires > said.issued + SECONDS:
            raise CredentialError("they are good for longer than credentials are")
        _node(said.node, state)
        if said.holder.function:
            _hold_function(said.holder, state)
        elif self._user_of(said.holder.key) != said.holder.user:
            raise CredentialError(f"the key that {said.holder.user} logged in with is not in the ledger any more")
        session = said.holder.session
        if session is not None and state.get("role", session.role) is None:
            raise CredentialError(f"the role {session.role} is not there any more")

    def _open(self, token: str, state: State) -> _Statement:
        """Whoever brings a token is not trusted. Raises CredentialError."""
        try:
            data = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise CredentialError("the token is no base64") from None
        text, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        said = _parsed(text)
        try:
            key = keys.parse_ssh(_node(str(said.get("node")), state).key)
            sshsig.verify_bare(key, NAMESPACE, text, signature)
        except sshsig.BadSignatureError:
            raise CredentialError("the token is not signed by the node that it names") from None
        return self._stated(said)

    def _stated(self, said: dict[str, Any]) -> _Statement:
        match said:
            case {
                "accessKey": str(access_key),
                "user": str(user),
                "key": str(key),
                "role": str() | None as role,
                "session": str() | None as session,
                "node": str(node),
                "project": str(project),
                "issued": int(issued),
                "expires": int(expires),
                "secret": str(sealed),
                "function": str(function),
                "commit": str(commit),
            }:
                taken = Session(role, session) if role is not None and session is not None else None
                holder = Holder(user, key, taken, function, commit, *_bounds(said))
                try:
                    policy = session_policy(holder.policy) if holder.policy else None
                except InvalidError as error:
                    raise CredentialError(f"the policy of the session is none: {error}") from None
                return _Statement(holder, access_key, self._unsealed(sealed), policy, node, project, issued, expires)
        raise CredentialError("the token is no statement about credentials")

    def _unsealed(self, sealed: str) -> str:
        try:
            secret: bytes = pyrage.decrypt(base64.b64decode(sealed, validate=True), [self._identity])
            return secret.decode("ascii")
        except Exception:  # pyrage's own
            raise CredentialError("this node was not there when they were given: get new ones") from None


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise CredentialError("the token is no statement about credentials")
    return said


def _bounds(said: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """What a statement says of a function's own role and of a session's policies. Raises CredentialError."""
    match said:
        case {"functionRole": str(role), "policy": str(policy), "policyNames": list(names)}:
            return role, policy, tuple(map(str, names))
    raise CredentialError("the token is no statement about credentials")


def session_policy(text: str) -> PolicySpec:
    """A session's own policy. Raises InvalidError for what is none."""
    return PolicySpec.parse(text.encode(), SESSION_POLICY)


def _node(fingerprint: str, state: State) -> NodeSpec:
    """The node of the ledger that has a key. Raises CredentialError."""
    node = state.holder("key", fingerprint)
    if node is None or not isinstance(node.spec, NodeSpec):
        raise CredentialError("the node that gave them is not in the ledger")
    return node.spec


def _hold_function(holder: Holder, state: State) -> None:
    """Raises CredentialError unless the head still gives the function its role: by its file, or, for an older version,
    by an alias of it. The document is read, as kinds of services are not known here.
    """
    function, session = state.get("function", holder.function), holder.session
    if function is None:
        raise CredentialError(f"the function {holder.function} is not there any more")
    if session is None or (not holder.function_role and session.name != function_session(holder.function)):
        raise CredentialError("a function signs as the session of its role")
    role = holder.function_role or session.role
    if state.get("role", role) is None:
        raise CredentialError(f"the role {role} is not there any more")
    document = function.document()
    if document.get("role") == role:
        return
    aliases = document.get("aliases", {}).values()
    if not holder.commit or all(holder.commit not in (each["commit"], *each.get("weights", {})) for each in aliases):
        raise CredentialError(f"the function {holder.function} does not have the role {role} any more")


def _credential(said: _Statement, state: State) -> Credential:
    holder = said.holder
    who: str | Session = holder.user
    if holder.session is not None:
        who = replace(holder.session, policies=tuple(_policies(said, state)))
    return Credential(
        access_key=said.access_key,
        secret=said.secret,
        who=who,
        arn=state.caller(who).arn,
        user_id=state.identity(who)["aws:userid"],
        issued=said.issued,
        expires=said.expires,
        user=holder.user,
        key=holder.key,
        function=holder.function,
        commit=holder.commit,
        function_role=holder.function_role or (holder.session.role if holder.function and holder.session else ""),
    )


def _policies(said: _Statement, state: State) -> Iterable[AttachedPolicy]:
    """Those of the session, as the ledger has them now. Raises CredentialError: without one it could do more."""
    if said.policy is not None:
        yield AttachedPolicy(SESSION_POLICY, "$", said.policy)
    for name in said.holder.policy_names:
        found = state.get("policy", name)
        if found is None or not isinstance(found.spec, PolicySpec):
            raise CredentialError(f"the policy {name} of the session is not there any more")
        yield AttachedPolicy(found.file, "$", found.spec)
