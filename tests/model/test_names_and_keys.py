"""Ids that follow from the genesis commit, and public keys as users write them."""

import subprocess
from pathlib import Path

import pytest

from owsgit.model import keys, names
from tests.support import people
from tests.support.people import Person

GENESIS = "6b0a4f3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a"


def test_the_project_id_is_the_genesis_commit_and_notices_typing_errors() -> None:
    project = names.project_id(GENESIS)
    assert project.startswith("ows1") and names.genesis_of(project) == GENESIS
    for index in range(4, len(project)):
        wrong = project[:index] + ("q" if project[index] != "q" else "p") + project[index + 1 :]
        assert names.genesis_of(wrong) is None
    assert names.genesis_of("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4") is None


def test_the_account_is_twelve_digits() -> None:
    assert names.account_id("0" * 40) == "000000000000"
    assert len(names.account_id("f" * 40)) == 12


def test_arns_of_names_that_none_can_have_are_not_kept() -> None:
    scope = names.Scope("us-east-1", names.account_id(GENESIS))
    before = names._arn.cache_info().misses
    assert scope.arn("arn:aws:x:{region}:{account}:{name}", "x" * 1000).endswith(":" + "x" * 1000)
    assert names._arn.cache_info().misses == before


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa:2048", "rsa:3072"])
def test_keys_of_ssh_keygen_are_read_with_its_fingerprints(tmp_path: Path, algorithm: str) -> None:
    person = people.make(tmp_path, "x", algorithm)
    key = keys.parse_ssh(person.private.with_suffix(".pub").read_text())
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", person.private], capture_output=True, text=True, check=True
    ).stdout
    assert key.fingerprint == shown.split()[1] and key.comment == "x"
    assert keys.parse_ssh(key.line).blob == key.blob


def test_damaged_and_private_keys_are_refused(alice: Person) -> None:
    algorithm, encoded = alice.public.split()
    for text, told in [
        (f"{algorithm} {encoded[:-4]}", "ends too early"),
        (f"{algorithm} {encoded[:-2]}!!", "base64 is damaged"),
        (f"ssh-rsa {encoded}", "of another algorithm"),
        (f"ssh-dss {encoded}", "not a key algorithm"),
        (f"no-pty {algorithm} {encoded}", "not a key algorithm"),
        ("ssh-ed25519", "not an OpenSSH public key line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx", "private key"),
        (f"{algorithm} {encoded[:-2]}AA{encoded[-2:]}", "."),
    ]:
        with pytest.raises(keys.KeyFormatError, match=told):
            keys.parse_ssh(text)


def test_short_rsa_keys_are_refused() -> None:
    import base64

    blob = b"".join(
        len(part).to_bytes(4, "big") + part for part in (b"ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 128)
    )
    with pytest.raises(keys.KeyFormatError, match="1024 bits is too weak"):
        keys.parse_ssh(f"ssh-rsa {base64.b64encode(blob).decode()}")
