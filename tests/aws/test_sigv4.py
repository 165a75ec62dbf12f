"""Signature Version 4 by itself: AWS's published example, and botocore as the other side of random requests."""

import string
import time
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from owsgit.aws import sigv4
from owsgit.aws.sigv4 import Request, SignatureError

KEY, SECRET = "AKIDEXAMPLE123456789", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_published_example_has_its_signature() -> None:
    """get-vanilla of the Signature Version 4 test suite."""
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLEAKIDE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )
    headers = [
        (b"host", b"example.amazonaws.com"),
        (b"x-amz-date", b"20150830T123600Z"),
        (b"authorization", authorization.encode()),
    ]
    request = Request("GET", b"/", b"", headers)
    signed = sigv4.read(request)
    assert signed is not None
    sigv4.check_signature(signed, request, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", EMPTY)
    with pytest.raises(SignatureError):
        sigv4.check_signature(signed, request, "another", EMPTY)


def wire(request: AWSRequest) -> Request:
    prepared = request.prepare()
    target = prepared.url.partition("test")[2].encode()
    path, _, query = target.partition(b"?")
    headers = [(name.lower().encode(), str(value).encode()) for name, value in prepared.headers.items()]
    return Request(prepared.method, path or b"/", query, [(b"host", b"api.test"), *headers])


TEXT = st.text(string.ascii_letters + string.digits + "-_.~!$'()*+,:;@&= é%/", max_size=12)


def quoted(text: str) -> str:
    return quote(text, safe="!$'()*+,:;@~")


@settings(max_examples=80, deadline=None)
@given(
    st.lists(TEXT, max_size=4),
    st.lists(st.tuples(TEXT, TEXT), max_size=4),
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.booleans(),
)
def test_botocore_and_this_agree(path: list[str], query: list[tuple[str, str]], method: str, presigned: bool) -> None:
    segments = [quoted(each) for each in path if each not in (".", "..")]
    url = "http://api.test/" + "/".join(segments)
    if query:
        url += "?" + "&".join(f"{quoted(name)}={quoted(value)}" for name, value in query)
    request = AWSRequest(method, url)
    sign: Any = SigV4QueryAuth if presigned else SigV4Auth
    sign(Credentials(KEY, SECRET), "execute-api", "us-east-1").add_auth(request)
    got = wire(request)
    signed = sigv4.read(got)
    assert signed is not None and signed.presigned == presigned
    sigv4.check_headers(signed, got)
    sigv4.check_time(signed, time.time())
    sigv4.check_scope(signed, "us-east-1", "execute-api")
    sigv4.check_signature(signed, got, SECRET, EMPTY)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80), st.dictionaries(st.sampled_from(
    ["Credential", "SignedHeaders", "Signature", "X"]), st.text(max_size=80)))  # fmt: skip
def test_whatever_comes_is_told_apart_and_never_fails(path: bytes, query: bytes, parts: dict[str, str]) -> None:
    text = "AWS4-HMAC-SHA256 " + ",".join(f"{name}={value}" for name, value in parts.items())
    headers = [(b"authorization", text.encode("utf-8", "replace")), (b"x-amz-date", b"20150830T123600Z")]
    for request in (
        Request("GET", path, query, headers),
        Request("GET", path, b"X-Amz-Algorithm=AWS4-HMAC-SHA256&" + query, []),
    ):
        with pytest.raises(SignatureError):
            assert sigv4.read(request) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=x-amz-date;host"), "does not match"),
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=host;host;x-amz-date"), "does not match"),
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=host;nowhere;x-amz-date"), "does not match"),
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=x-amz-date"), "'host' must be"),
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=host"), "'x-amz-date' must be"),
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=Host;x-amz-date"), "in lower case"),
        (("SignedHeaders=host;x-amz-date", "SignedHeaders=" + ";".join(["a"] * 200)), "SignedHeaders must be"),
        (("Signature=", "Signature=0"), "64 hexadecimal digits"),
        (("aws4_request", "aws5_request"), "Credential must have"),
        (("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "Unsupported AWS 'algorithm'"),
        (("Signature", "Signatur"), "requires 'Credential', 'Signature'"),
    ],
)
def test_what_is_signed_is_written_in_one_way(change: tuple[str, str], told: str) -> None:
    request = AWSRequest("GET", "http://api.test/")
    SigV4Auth(Credentials(KEY, SECRET), "execute-api", "us-east-1").add_auth(request)
    assert change[0] in request.headers["Authorization"]
    text = request.headers["Authorization"].replace(*change)
    del request.headers["Authorization"]
    request.headers["Authorization"] = text
    got = wire(request)
    with pytest.raises(SignatureError) as error:
        signed = sigv4.read(got)
        assert signed is not None
        sigv4.check_headers(signed, got)
        sigv4.check_signature(signed, got, SECRET, EMPTY)
    assert told in str(error.value)


def test_what_is_kept_of_requests_that_nobody_signed_is_short() -> None:
    text = f"AWS4-HMAC-SHA256 Credential={KEY}/20150830/r/s/aws4_request, SignedHeaders=host, Signature={EMPTY}"
    sigv4._usual.cache_clear()
    with pytest.raises(SignatureError, match="Date must be"):
        sigv4.read(Request("GET", b"/", b"", [(b"authorization", text.encode()), (b"x-amz-date", b"2" * 60_000)]))
    assert sigv4._usual.cache_info().currsize == 0
