"""Sealed text, and what can be told of secrets with and without a key."""

import base64
import json
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from owsgit.ledger import sshsig
from owsgit.model import keys
from owsgit.model.change import Change
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.service import SecretValue
from owsgit.model.state import State
from owsgit.services import KINDS
from owsgit.services.secrets import sealing, watch
from owsgit.services.secrets.sealing import SealError, Vault
from owsgit.services.secrets.watch import Watch
from tests.support import projects

FILE = "secrets/db.json"


def rewrapped(
    document: dict[str, Any], machine: "Machine", file: str = FILE, former: Resource | None = None
) -> dict[str, Any]:
    """The document with a node's word that the value is the same as in `former`."""
    before = former.document()["sealed"] if former is not None else ""
    statement = sealing.statement(file, document["version"], before, document["sealed"])
    private = serialization.load_ssh_private_key(machine.private, None)
    assert isinstance(private, Ed25519PrivateKey)
    signature = base64.b64encode(sshsig.sign_bare(private, sealing.NAMESPACE, statement)).decode()
    return {**document, "rewrapped": {"by": machine.fingerprint, "signature": signature}}


class Machine:
    """A node's key, without the node."""

    def __init__(self, name: str) -> None:
        self.name = name
        private = Ed25519PrivateKey.generate()
        self.private = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.line = public.decode()
        self.fingerprint = keys.parse_ssh(self.line).fingerprint
        self.watch = Watch(Vault(self.private), self.fingerprint)

    @property
    def spec(self) -> dict[str, Any]:
        return {"key": self.line, "address": f"{self.name}.example.com"}


A, B, C = (Machine(name) for name in "abc")


def secret(value: SecretValue, *machines: Machine, file: str = FILE, **more: Any) -> dict[str, Any]:
    return {
        "version": value.version,
        "readers": {each.fingerprint: each.name for each in machines},
        "sealed": sealing.seal(value, file, [each.line for each in machines]),
        **more,
    }


def resource(document: dict[str, Any], name: str = "db", kind: str = "secret") -> Resource:
    found = KINDS[kind]
    data = json.dumps(document).encode()
    return Resource(found, name, found.spec.parse(data, found.file(name)), f"{hash(data):x}")


def state_of(*machines: Machine, **secrets: Resource) -> State:
    made = [
        resource({"name": "shop", "roots": ["alice"]}, "", "project"),
        resource({"keys": [projects.node_key()]}, "alice", "user"),
        *(resource(each.spec, each.name, "node") for each in machines),
        *secrets.values(),
    ]
    return State.empty(KINDS).born("ab" * 20).after([Change(None, each) for each in made])


VALUE = SecretValue(1, b"correct horse")


@pytest.mark.parametrize("value", [VALUE, SecretValue(7, b"\x00\xff", binary=True), SecretValue(2, "ü\n".encode())])
def test_what_is_sealed_for_a_node_is_opened_by_it_alone(value: SecretValue) -> None:
    sealed = sealing.seal(value, FILE, [A.line, B.line])
    for machine in (A, B):
        opened = Vault(machine.private).open(sealed)
        assert (opened.file, opened.value) == (FILE, value)
    with pytest.raises(SealError, match="this node cannot open it"):
        Vault(C.private).open(sealed)
    assert sealing.readers(sealed) == {sealing.tag(A.fingerprint), sealing.tag(B.fingerprint)}


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"[]", b"null", b'{"file": "x"}', b'{"file": "x", "version": 1, "string": "a", "more": 1}', b"[" * 50_000,
     b'{"file": "x", "version": 1, "string": "\\ud800"}', b'{"file": "x", "version": 1, "binary": "*"}',
     b'{"file": "x", "version": true, "string": "a"}', b'{"file": 1, "version": 1, "string": "a"}', b'{"file": "x", "version": "1", "string": "a"}'],
)  # fmt: skip
def test_whatever_else_somebody_sealed_is_refused(content: bytes) -> None:
    sealed = pyrage.encrypt(content, [pyrage.ssh.Recipient.from_str(A.line)], armored=True).decode()
    with pytest.raises(SealError):
        Vault(A.private).open(sealed)


def test_a_value_is_in_no_repr() -> None:
    assert "horse" not in repr(VALUE) and "horse" not in repr(
        Vault(A.private).open(sealing.seal(VALUE, FILE, [A.line]))
    )


def test_what_is_sealed_by_age_for_something_else_is_refused() -> None:
    other = pyrage.x25519.Identity.generate().to_public()
    foreign = pyrage.encrypt(b"x", [other, pyrage.ssh.Recipient.from_str(A.line)], armored=True).decode()
    phrase = pyrage.passphrase.encrypt(b"x", "word", armored=True).decode()
    good = sealing.seal(VALUE, FILE, [A.line])
    lines = good.split("\n")
    for bad in (foreign, phrase, "", good + good, good.replace("AGE", "EGA"), "\n".join([lines[0], "*", *lines[2:]]),
                sealing._BEGIN + "\n" + base64.b64encode(b"x").decode() + "\n" + sealing._END + "\n"):  # fmt: skip
        with pytest.raises(ValueError, match=r"age|sealed"):
            sealing.readers(bad)


SEALED = sealing.seal(VALUE, FILE, [A.line])


@given(st.integers(0, 500), st.characters(codec="ascii"))
def test_no_changed_text_is_opened_and_none_crashes(at: int, sign: str) -> None:
    changed = SEALED[:at] + sign + SEALED[at + 1 :]
    try:
        sealing.readers(changed)
        opened = Vault(A.private).open(changed)
    except (ValueError, SealError):
        return
    assert opened.value == VALUE


@pytest.mark.parametrize(
    ("document", "path", "told"),
    [
        ({"version": 0}, "$.version", "greater than or equal to 1"),
        ({"sealed": "correct horse"}, "$.sealed", "not an armoured age file"),
        ({"readers": {}}, "$.readers", "something is needed here"),
        ({"readers": {C.fingerprint: "c"}}, "$", "sealed for keys that readers does not name"),
        ({"value": "correct horse"}, "$.value", "not a known field"),
    ],
)
def test_bad_secrets_are_refused(document: dict[str, Any], path: str, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        resource({**secret(VALUE, A, B), **document})
    assert any(each.path == path and told in each.message for each in caught.value.problems), str(caught.value)
    assert "horse" not in str(caught.value), "what was written by mistake may be the secret itself"


def problems(before: Resource, after: Resource) -> list[str]:
    state = state_of(A, B, C, db=before)
    try:
        state.after([Change(before, after)])
    except InvalidError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_versions_only_go_up_and_readers_stay_named() -> None:
    before = resource(secret(SecretValue(3, b"three"), A, B))
    assert problems(before, resource(secret(SecretValue(4, b"four"), A))) == []
    again = secret(SecretValue(3, b"three"), A, B, C)
    assert problems(before, resource(rewrapped(again, A, former=before))) == []
    for bad in (
        again,
        rewrapped(again, C, former=before),  # it could not open what was there before
        rewrapped(again, A, "secrets/other.json", before),
        rewrapped(again, A, former=resource(secret(SecretValue(3, b"another"), A, B))),  # its word on another text
        {**rewrapped(secret(SecretValue(3, b"three"), A, B, C), A, former=before), "sealed": again["sealed"]},
    ):
        assert "no node says that the value is the same" in problems(before, resource(bad))[0]
    assert "no value comes back" in problems(before, resource(secret(SecretValue(2, b"two"), A, B)))[0]
    assert "no value comes back" in problems(before, resource(secret(SecretValue(5, b"five"), A, B)))[0]
    gone = problems(before, resource(secret(SecretValue(3, b"three"), A)))[0]
    assert "(b) could read version 3, and has to stay named" in gone


def needed(before: Resource | None, after: Resource | None) -> list[str]:
    state = state_of(A)
    return sorted({need.action for need in Change(before, after).needs(state.scope, KINDS)})


def test_each_change_has_its_action() -> None:
    one, two = resource(secret(VALUE, A)), resource(secret(SecretValue(2, b"new"), A))
    assert needed(None, one) == ["secretsmanager:CreateSecret", "secretsmanager:PutSecretValue"]
    assert needed(one, two) == ["secretsmanager:PutSecretValue"]
    assert needed(one, resource(secret(VALUE, A, B))) == ["ows:RewrapSecret"]
    assert needed(one, resource({**one.document(), "description": "x"})) == ["secretsmanager:UpdateSecret"]
    assert needed(one, None) == ["secretsmanager:DeleteSecret"]


def test_arns_end_as_on_aws() -> None:
    state = state_of(A, db=resource(secret(VALUE, A)))
    arn = state.resources["secrets/db"].arn(state.scope)
    kind = KINDS["secret"]
    assert arn.rpartition("-")[0] == f"arn:aws:secretsmanager:us-east-1:{state.scope.account}:secret:db"
    assert len(arn.rpartition("-")[2]) == 6 and kind.name_of(arn, state.scope) == "db"
    assert kind.name_of(arn[:-1] + "?", state.scope) is None and kind.name_of(arn + "x", state.scope) is None


def told(machine: Machine, before: Resource | None, after: Resource) -> list[str]:
    return [str(problem) for problem in machine.watch.inspect(Change(before, after))]


def test_nodes_see_what_was_moved_forged_or_brought_back() -> None:
    one = resource(secret(VALUE, A, B))
    assert told(A, None, one) == [] == told(C, None, one)
    moved = resource(one.document(), "other")
    assert "what is sealed here is version 1 of secrets/db.json" in told(A, None, moved)[0]
    old = resource({**secret(SecretValue(2, b"x"), A, B), "sealed": one.document()["sealed"]})
    assert "what is sealed here is version 1" in told(B, one, old)[0]
    forged = resource(secret(SecretValue(1, b"wrong horse"), A, B))
    (problem,) = told(A, one, forged)
    assert "a new value under an old version" in problem and "horse" not in problem
    assert told(A, one, resource(secret(VALUE, A, B, C))) == []
    readers = {A.fingerprint: "a", B.fingerprint: "b", C.fingerprint: "c"}
    hidden = resource({"version": 1, "readers": readers, "sealed": sealing.seal(VALUE, FILE, [C.line])})
    assert "could not any more" in told(A, one, hidden)[0], "or nobody but who sealed it would know what is in it"
    assert told(C, one, hidden) == []


def test_what_has_to_be_done_is_told() -> None:
    def standing(*machines: Machine) -> str:
        (found,) = watch.standings(state_of(*machines, db=resource(secret(VALUE, A, B))))
        return found.problem

    assert standing(A, B) == ""
    assert standing(A, B, C) == "not sealed for c: owsgit secret rewrap db"
    assert standing(A).startswith("b, which is gone, could read it") and "owsgit secret rotate db" in standing(A)
