"""Credentials by themselves: what a node that lies can put into them, and what is told."""

import base64
import json
import time
from typing import Any

import pyrage
import pytest

from owsgit.aws import credentials
from owsgit.ledger import sshsig
from owsgit.model.errors import UnavailableError
from owsgit.model.service import CredentialError
from tests.support.gateways import Account, Key


@pytest.fixture(scope="module")
def account() -> Account:
    return Account()


def opened(token: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token)[: -credentials.SIGNATURE_BYTES])
    return said


def written(account: Account, said: Any, node: str = "a", namespace: bytes = credentials.NAMESPACE) -> str:
    """A token as a node writes it that may say anything."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    signature = sshsig.sign_bare(account.nodes[node].private, namespace, text)
    return base64.urlsafe_b64encode(text + signature).decode()


def test_every_node_opens_what_one_of_them_gave(account: Account) -> None:
    given = account.give("bob", "a")
    for node in account.nodes:
        found = account.desk_of(node).check(given.token)
        assert (found.access_key, found.secret, found.who) == (given.access_key, given.secret, "bob")
    assert given.secret not in repr(given) + repr(found) and given.secret.encode() not in base64.b64decode(
        opened(given.token)["secret"]
    )
    assert given.access_key.startswith("ASIA") and len(given.access_key) == 20 and len(given.secret) == 40


def test_no_token_is_like_another(account: Account) -> None:
    made = [account.give("bob") for _ in range(20)]
    assert len({each.secret for each in made} | {each.access_key for each in made}) == 40


@pytest.mark.parametrize(
    "change",
    [
        {"user": "alice"},
        {"user": None},
        {"user": ["bob"]},
        {"key": "SHA256:nobody"},
        {"project": "ows1other"},
        {"issued": "now"},
        {"issued": 0},
        {"expires": 2**40},
        {"expires": 1.5},
        {"expires": None},
        {"secret": "x"},
        {"secret": base64.b64encode(b"age-encryption.org/v1\n").decode()},
        {"node": "SHA256:nobody"},
        {"role": "nobody", "session": "x-y"},
        {"role": 5},
        {"policy": "{}"},
        {"policy": None},
        {"policyNames": "x"},
        {"policyNames": ["nobody"], "role": "clerk", "session": "x"},
        {"functionRole": 5},
        {"function": "f", "functionRole": "clerk", "role": "clerk", "session": "x"},
    ],
    ids=str,
)
def test_a_node_cannot_say_what_the_ledger_does_not(account: Account, change: dict[str, Any]) -> None:
    said = opened(account.give("bob").token) | change
    with pytest.raises(CredentialError):
        account.desk.check(written(account, said))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"5", b"[" * 20_000, b'{"node": 1}', b"\xff\xfe"], ids=repr
)
def test_what_is_no_statement_is_refused(account: Account, data: bytes) -> None:
    with pytest.raises(CredentialError):
        account.desk.check(written(account, data))


@pytest.mark.parametrize("token", ["", "=", "é", "A" * 87, "\ud800", " " * 100])
def test_what_is_no_token_is_refused(account: Account, token: str) -> None:
    with pytest.raises(CredentialError):
        account.desk.check(token)


def test_what_a_node_signed_for_something_else_is_no_token(account: Account) -> None:
    said = opened(account.give("bob").token)
    assert account.desk.check(written(account, said)).who == "bob"
    with pytest.raises(CredentialError):
        account.desk.check(written(account, said, namespace=b"owsgit-rewrap"))
    with pytest.raises(CredentialError):
        account.desk.check(written(account, said, "b"))


def test_a_secret_that_is_sealed_for_others_is_not_read(account: Account) -> None:
    stranger = pyrage.ssh.Recipient.from_str(Key().line)
    said = opened(account.give("bob").token) | {"secret": base64.b64encode(pyrage.encrypt(b"x", [stranger])).decode()}
    with pytest.raises(CredentialError, match="get new ones"):
        account.desk.check(written(account, said))


def test_a_node_remembers_so_many_tokens_and_no_more(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "OPENED_MAX", 3)
    desk = account.desk_of("b")
    made = [account.give("bob") for _ in range(5)]
    for _ in range(2):
        for each in made:
            assert desk.check(each.token).access_key == each.access_key


def test_a_project_of_too_many_nodes_is_told() -> None:
    account = Account()
    account.change({("node", f"n{i}"): {"key": Key().line, "address": f"n{i}.test"} for i in range(60)})
    assert account.desk.check(account.give("bob").token).who == "bob"
    account.change({("node", f"m{i}"): {"key": Key().line, "address": f"m{i}.test"} for i in range(140)})
    with pytest.raises(UnavailableError, match="too many nodes"):
        account.give("bob", now=time.time())
