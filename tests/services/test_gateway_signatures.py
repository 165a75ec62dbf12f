"""AWS signatures and resource policies at a gateway: signed by botocore, and what is tried with them."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from owsgit.aws.credentials import Given
from owsgit.model.errors import InvalidError
from owsgit.model.iam.decision import Session
from owsgit.services.gateways.policy import GatewayPolicy, unmatched
from owsgit.services.gateways.spec import GatewaySpec
from tests.support.gateways import Account, Gateways, Key

REGION, SERVICE = "us-east-1", "execute-api"
ROUTES = {
    "ANY /pets/{id+}": {"function": "echo"},
    "ANY /pets": {"function": "echo"},
    "GET /one": {"function": "echo", "payloadFormatVersion": "1.0"},
}


def allow(*resources: str, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": list(resources), **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


PETS = allow("arn:aws:execute-api:*:*:api/$default/*/pets", "arn:aws:execute-api:*:*:api/$default/*/pets/*")


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = Gateways(tmp_path_factory.mktemp("gateways"), Account())
    yield made
    made.close()


@pytest.fixture
def served(gateways: Gateways) -> Gateways:
    """Bob may call the pets; everybody has to sign."""
    account = gateways.account = Account()
    bob(account, inlinePolicies={"pets": PETS})
    gateways.serve(auth="iam", routes=ROUTES)
    return gateways


def bob(account: Account, **document: Any) -> None:
    account.change({("user", "bob"): {"keys": [account.users["bob"].line], **document}})


def signed(
    gateways: Gateways,
    given: Given,
    path: str,
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    region: str = REGION,
    service: str = SERVICE,
    sign: Callable[..., Any] = SigV4Auth,
    token: str | None = None,
) -> httpx.Request:
    """A request as botocore signs it."""
    keys = Credentials(given.access_key, given.secret, given.token if token is None else token or None)
    url = str(gateways.client.base_url.join(path))
    request = AWSRequest(method, url, headers=headers, data=body)
    sign(keys, service, region).add_auth(request)
    prepared = request.prepare()
    return httpx.Request(method, prepared.url, headers=dict(prepared.headers.items()), content=body)


def presigned(gateways: Gateways, given: Given, path: str, seconds: int = 60) -> httpx.Request:
    return signed(gateways, given, path, sign=lambda *given: SigV4QueryAuth(*given, expires=seconds))


def send(gateways: Gateways, request: httpx.Request) -> httpx.Response:
    return gateways.client.send(request)


def refused(gateways: Gateways, request: httpx.Request, told: str = "") -> str:
    answer = send(gateways, request)
    assert answer.status_code == 403, answer.text
    message = answer.json().get("message", "")
    assert told in message
    return str(message)


def altered(request: httpx.Request, **headers: str | None) -> httpx.Request:
    """The same with other headers (underscores are hyphens); None takes one off."""
    kept = dict(request.headers)
    for name, value in headers.items():
        kept.pop(name.replace("_", "-"), None)
        if value is not None:
            kept[name.replace("_", "-")] = value
    return httpx.Request(request.method, request.url, headers=kept, content=request.content)


@pytest.mark.parametrize(
    "path",
    [
        "/pets",
        "/pets/",
        "/pets/a%20b/%C3%A9",
        "/pets/~x-y_z.1/*'()!",
        "/pets/a%2Fb/c",
        "/pets/a//b",
        "/pets?b=2&a=1&a=0&empty=&bare",
        "/pets?q=a%20b%2Bc+d,e:f@g~h*&%C3%A9=%C3%A9",
        "/pets?x=%7e&X=y/z?",
    ],
)
def test_what_botocore_signs_is_taken(served: Gateways, path: str) -> None:
    given = served.account.give("bob")
    for method, body in (("GET", b""), ("POST", b'{"a": "\xc3\xa9"}')):
        answer = send(served, signed(served, given, path, method, body, {"X-Extra": "a   b", "Content-Type": "a/b"}))
        assert answer.status_code == 200, answer.text
    assert send(served, presigned(served, given, path)).status_code == 200


def test_who_signed_is_told_to_the_function(served: Gateways) -> None:
    bob(served.account, inlinePolicies={"all": allow("arn:aws:execute-api:*:*:api/*")})
    given = served.account.give("bob")
    account = served.account.state.scope.account
    arn = f"arn:aws:iam::{account}:user/bob"
    told = send(served, signed(served, given, "/pets")).json()["requestContext"]
    assert told["authorizer"]["iam"] == {
        "accessKey": given.access_key, "accountId": account, "callerId": "bob", "cognitoIdentity": None,
        "principalOrgId": None, "userArn": arn, "userId": "bob",
    }  # fmt: skip
    identity = send(served, signed(served, given, "/one")).json()["requestContext"]["identity"]
    assert {name: identity[name] for name in ("accessKey", "accountId", "caller", "user", "userArn")} == {
        "accessKey": given.access_key, "accountId": account, "caller": "bob", "user": "bob", "userArn": arn,
    }  # fmt: skip


def test_policies_decide_on_the_api_the_stage_the_method_and_the_path(served: Gateways) -> None:
    given = served.account.give("bob")
    assert refused(served, signed(served, given, "/one")) == "Forbidden"
    only = "arn:aws:execute-api:us-east-1:*:api/$default/GET/pets/a"
    bob(served.account, inlinePolicies={"one": allow(only)})
    assert send(served, signed(served, given, "/pets/a")).status_code == 200
    assert send(served, signed(served, given, "/pets/a/")).status_code == 200, "as it is the same route"
    for method, path in (("GET", "/pets/b"), ("POST", "/pets/a"), ("GET", "/pets/a/b"), ("GET", "/pets")):
        assert refused(served, signed(served, given, path, method)) == "Forbidden"
    deny = {**PETS["Statement"][0], "Effect": "Deny", "Resource": "arn:aws:execute-api:*:*:*/*/*/pets/a/*"}
    bob(served.account, inlinePolicies={"pets": PETS, "no": {"Version": "2012-10-17", "Statement": deny}})
    assert refused(served, signed(served, given, "/pets/a/b")) == "Forbidden"
    assert send(served, signed(served, given, "/pets/a%2Fb")).status_code == 200, "a slash in a segment is none"


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "127.0.0.0/8"]}}, True),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, False),
        ({"IpAddress": {"aws:VpcSourceIp": "127.0.0.1"}}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"Bool": {"aws:SecureTransport": "false"}}, True),
        ({"StringLike": {"aws:UserAgent": "shop/*"}}, True),
        ({"StringEquals": {"aws:username": "bob"}}, True),
        ({"StringEquals": {"aws:PrincipalType": "AssumedRole"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
        ({"NumericLessThan": {"aws:EpochTime": "1000000000"}}, False),
        ({"DateGreaterThan": {"aws:TokenIssueTime": "2020-01-01T00:00:00Z"}}, True),
    ],
    ids=str,
)
def test_conditions_are_asked_of_the_request(served: Gateways, condition: dict[str, Any], passes: bool) -> None:
    bob(served.account, inlinePolicies={"c": allow("arn:aws:execute-api:*:*:api/*", Condition=condition)})
    request = signed(served, served.account.give("bob"), "/pets", headers={"User-Agent": "shop/1"})
    assert send(served, request).status_code == (200 if passes else 403)


def test_a_role_that_was_taken_on_has_its_own_rights(served: Gateways) -> None:
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
             "Principal": {"AWS": "arn:aws:iam::*:user/bob"}}}  # fmt: skip
    role = {"trust": trust, "inlinePolicies": {"one": allow("arn:aws:execute-api:*:*:api/*/GET/one")}}
    served.account.change({("role", "caller"): role})
    given = served.account.give("bob", session=Session("caller", "owsgit-bob"))
    answer = send(served, signed(served, given, "/one"))
    identity = answer.json()["requestContext"]["identity"]
    assert identity["userArn"].endswith(":assumed-role/caller/owsgit-bob")
    assert refused(served, signed(served, given, "/pets")) == "Forbidden"
    served.account.change({("role", "caller"): None})
    refused(served, signed(served, given, "/one"), "security token included in the request is invalid")


def test_a_request_without_a_signature_is_told_so(served: Gateways) -> None:
    answer = served.client.get("/pets")
    assert (answer.status_code, answer.json()) == (403, {"message": "Missing Authentication Token"})
    assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert served.client.get("/pets", headers={"authorization": "Bearer x"}).status_code == 403


MISMATCH = "The request signature we calculated does not match"


def test_no_part_of_a_signed_request_can_be_changed(served: Gateways) -> None:
    given = served.account.give("bob")
    good = signed(served, given, "/pets/a?x=1", "POST", b"body", {"X-Extra": "1"})
    assert send(served, good).status_code == 200
    url = str(good.url)

    def other(method: str = "POST", url: str = url, content: bytes = b"body") -> httpx.Request:
        headers = {name: value for name, value in good.headers.items() if name != "content-length"}
        return httpx.Request(method, url, headers=headers, content=content)

    assert send(served, other()).status_code == 200
    changed = [
        other(method="PUT"),
        other(url=url.replace("/pets/a", "/pets/b")),
        other(url=url.replace("x=1", "x=2")),
        other(url=url + "&y=1"),
        other(url=url.partition("?")[0]),
        other(content=b"bodY"),
        other(content=b""),
        altered(good, x_extra="2"),
        altered(good, host="other.test"),
    ]
    for request in changed:
        refused(served, request, MISMATCH)
    refused(served, altered(good, x_extra=None))
    now = good.headers["x-amz-date"]
    later = (datetime.strptime(f"{now}+0000", "%Y%m%dT%H%M%SZ%z") + timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ")
    refused(served, altered(good, x_amz_date=later))
    text = good.headers["authorization"]
    last = "0" if text[-1] != "0" else "1"
    refused(served, altered(good, authorization=text[:-1] + last), MISMATCH)
    refused(served, altered(good, x_amz_security_token=served.account.give("alice").token), "token")
    refused(served, altered(good, x_amz_more="1"), "'x-amz-more' must be a 'SignedHeader'")
    for part in (given.access_key, "AWS4-HMAC-SHA256", "SignedHeaders=", "Signature=", "aws4_request", "host;"):
        assert part in text
        refused(served, altered(good, authorization=text.replace(part, "x" * len(part))))


@pytest.mark.parametrize("name", ["X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Credential",
                                  "X-Amz-SignedHeaders", "X-Amz-Security-Token", "X-Amz-Algorithm"])  # fmt: skip
def test_no_part_of_a_presigned_request_can_be_changed(served: Gateways, name: str) -> None:
    good = presigned(served, served.account.give("bob"), "/pets?x=1")
    assert send(served, good).status_code == 200
    value = good.url.params[name]
    for other in (value[:-1] + ("0" if value[-1] != "0" else "1"), "", value + "0"):
        refused(served, httpx.Request("GET", good.url.copy_set_param(name, other)))
    refused(served, httpx.Request("GET", good.url.copy_remove_param(name)))
    refused(served, httpx.Request("GET", good.url.copy_add_param(name, "x")))
    refused(served, httpx.Request("GET", str(good.url) + "&y=1"))
    refused(served, httpx.Request("POST", good.url))


def signed_at(served: Gateways, monkeypatch: pytest.MonkeyPatch, ahead: float, **options: Any) -> httpx.Request:
    """A request that was signed by a clock that differs."""
    then = datetime.now(UTC) + timedelta(seconds=ahead)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: then.replace(tzinfo=None))
    given = served.account.give("bob")
    made = options.pop("make", signed)(served, given, "/pets", **options)
    monkeypatch.undo()
    return made


def test_a_request_is_good_for_five_minutes(served: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (-280, 280):
        assert send(served, signed_at(served, monkeypatch, seconds)).status_code == 200
    refused(served, signed_at(served, monkeypatch, -320), "Signature expired")
    refused(served, signed_at(served, monkeypatch, 320), "Signature not yet current")
    assert send(served, signed_at(served, monkeypatch, -900, make=presigned, seconds=1000)).status_code == 200
    refused(served, signed_at(served, monkeypatch, -900, make=presigned, seconds=800), "Signature expired")


def test_a_signature_for_another_region_or_service_is_none(served: Gateways) -> None:
    given = served.account.give("bob")
    refused(served, signed(served, given, "/pets", region="eu-west-1"), "valid region, not 'eu-west-1'")
    refused(served, signed(served, given, "/pets", service="lambda"), "correct service: 'execute-api'")


def test_what_a_body_is_said_to_be_is_checked(served: Gateways) -> None:
    given = served.account.give("bob")

    def request(said: str, body: bytes = b"body") -> httpx.Request:
        class Said(SigV4Auth):
            def payload(self, request: Any) -> str:
                return said

        return signed(served, given, "/pets", "POST", body, {"X-Amz-Content-SHA256": said}, sign=Said)

    assert send(served, request(hashlib.sha256(b"body").hexdigest())).status_code == 200
    refused(served, request(hashlib.sha256(b"other").hexdigest()), "does not match what was computed")
    refused(served, request("UNSIGNED-PAYLOAD"), "over https alone")
    refused(served, request("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), "must be the SHA-256")


def test_credentials_have_to_be_whole_and_go_together(served: Gateways) -> None:
    account = served.account
    given, other = account.give("bob"), account.give("bob")
    invalid = "The security token included in the request is invalid."
    refused(served, signed(served, given, "/pets", token=""), invalid)
    refused(served, signed(served, given, "/pets", token="x" * 30_000), invalid)
    refused(served, signed(served, given, "/pets", token="x" * 33_000), invalid)
    refused(served, signed(served, given, "/pets", token=other.token), invalid)
    refused(served, signed(served, given, "/pets", token=given.token[:-4] + "AAAA"), invalid)
    mixed = Given(given.access_key, other.secret, given.token, given.expires)
    refused(served, signed(served, mixed, "/pets"), MISMATCH)


def test_credentials_end_after_an_hour(served: Gateways) -> None:
    given = served.account.give("bob", now=time.time() - 3590)
    assert send(served, signed(served, given, "/pets")).status_code == 200
    old = served.account.give("bob", now=time.time() - 3601)
    refused(served, signed(served, old, "/pets"), "included in the request is expired")
    early = served.account.give("bob", now=time.time() + 1000)
    refused(served, signed(served, early, "/pets"), "is invalid")


def test_who_leaves_the_ledger_is_out_at_once(served: Gateways) -> None:
    account = served.account
    given, later = account.give("bob"), account.give("bob")
    request = signed(served, given, "/pets")
    assert send(served, request).status_code == 200
    key = Key()
    account.change({("user", "bob"): {"keys": [key.line], "inlinePolicies": {"pets": PETS}}})
    refused(served, request, "is invalid")
    refused(served, signed(served, later, "/pets"), "is invalid")
    account.change({("user", "bob"): None})
    refused(served, request, "is invalid")


def test_a_node_that_left_the_ledger_gives_nothing(served: Gateways) -> None:
    account = served.account
    by_a, by_b = account.give("bob", "a"), account.give("bob", "b")
    requests = [signed(served, each, "/pets") for each in (by_a, by_b)]
    assert [send(served, each).status_code for each in requests] == [200, 200]
    account.change({("node", "a"): None})
    assert [send(served, each).status_code for each in requests] == [403, 200]
    forger = Account()
    forger.state = account.state
    refused(served, signed(served, forger.give("bob", "b"), "/pets"), "is invalid")


def test_credentials_from_before_a_node_joined_are_refused_there_alone(served: Gateways) -> None:
    account = served.account
    given = account.give("bob")
    account.nodes["c"] = Key()
    account.change({("node", "c"): {"key": account.nodes["c"].line, "address": "c.test"}})
    request = signed(served, given, "/pets")
    assert send(served, request).status_code == 200
    account.desk = account.desk_of("c")
    refused(served, request, "is invalid")
    assert send(served, signed(served, account.give("bob"), "/pets")).status_code == 200


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    common = {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}
    return {"Version": "2012-10-17", "Statement": [{**common, **each} for each in statements]}


HERE, ELSEWHERE = {"IpAddress": {"aws:SourceIp": "127.0.0.1"}}, {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
OPEN = {key: {**route, "auth": "none"} for key, route in ROUTES.items()}


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("execute-api:/*", False),
        ("execute-api:/*/GET/pets", False),
        ("execute-api:/live/GET/pets", False),
        ("execute-api:/l?v*/GET/pets", False),
        ("arn:aws:execute-api:us-east-1:*:*", False),
        ("arn:aws:execute-api:us-east-1:*:shop/live/GET/pets", False),
        ("arn:aws:execute-api:us-east-1:*:*/GET/pets", False),
        ("execute-api:/prod/GET/pets", True),
        ("execute-api:/lives/*", True),
        ("execute-api:/$default/GET/pets", True),
        ("arn:aws:execute-api:us-east-1:*:abc123/live/GET/pets", True),
        ("arn:aws:execute-api:us-east-1:*:shop", True),
    ],
)
def test_a_resource_that_no_call_of_the_gateway_is_gets_a_warning(resource: str, told: bool) -> None:
    """A Deny of it would deny nobody."""
    document = {
        "port": 80,
        "stages": {"live": {}, "beta": {}},
        "routes": {},
        "policy": policy({}, {"Resource": resource}),
    }
    found = list(GatewaySpec.parse(json.dumps(document).encode(), "gateways/shop.json").warnings("gateways/shop.json"))
    assert [each.path for each in found] == (["$.policy.Statement[1].Resource"] if told else [])
    assert all(
        each.message.startswith(f"{resource} is no call") and "stages live, beta" in each.message for each in found
    )


@pytest.mark.parametrize(
    ("statements", "passes"),
    [
        ([{}], True),
        ([{"Condition": HERE}], True),
        ([{"Condition": ELSEWHERE}], False),
        ([{}, {"Effect": "Deny", "Condition": HERE}], False),
        ([{}, {"Effect": "Deny", "Condition": ELSEWHERE}], True),
        ([{}, {"Effect": "Deny", "Condition": {"NotIpAddress": {"aws:SourceIp": ["127.0.0.0/8"]}}}], True),
        ([{}, {"Effect": "Deny", "Condition": {"NotIpAddress": {"aws:VpcSourceIp": ["10.0.0.0/8"]}}}], False),
        ([{"Resource": "execute-api:/$default/GET/pets"}], True),
        ([{"Resource": "execute-api:/$default/POST/pets"}], False),
        ([{"Resource": "arn:aws:execute-api:us-east-1:*:api/*/GET/*"}], True),
        ([{"Resource": "arn:aws:execute-api:us-east-1:*:other/*"}], False),
        ([{"Principal": {"AWS": "arn:aws:iam::*:user/bob"}}], False),
        ([{"Principal": {"AWS": "arn:aws:iam::*:root"}}], False),
        ([{}, {"Effect": "Deny", "NotPrincipal": {"AWS": "arn:aws:iam::*:user/bob"}, "Principal": None}], False),
        ([{}, {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}], False),
    ],
    ids=str,
)
def test_a_policy_says_who_may_call_without_a_name(
    served: Gateways, statements: list[dict[str, Any]], passes: bool
) -> None:
    document = policy(*statements)
    document["Statement"] = [{k: v for k, v in each.items() if v is not None} for each in document["Statement"]]
    served.serve(policy=document, routes=OPEN)
    answer = served.client.get("/pets")
    assert answer.status_code == (200 if passes else 403), answer.text
    served.serve(policy=document, routes={**OPEN, "GET /signed": {"function": "echo", "auth": "iam"}})
    assert served.client.get("/pets").status_code == answer.status_code, "also where the policy is asked in each route"


def test_a_denial_by_the_policy_is_told_in_aws_words(served: Gateways) -> None:
    served.serve(policy=policy({}, {"Effect": "Deny", "Condition": HERE}), routes=OPEN)
    account = served.account.state.scope.account
    told = "User: anonymous is not authorized to perform: execute-api:Invoke on resource: "
    arn = f"arn:aws:execute-api:us-east-1:********{account[-4:]}:api/$default/GET/pets"
    assert served.client.get("/pets").json() == {"Message": f"{told}{arn} with an explicit deny"}
    served.serve(policy=policy({"Condition": ELSEWHERE}), routes=OPEN)
    assert served.client.get("/pets").json() == {"Message": f"{told}{arn}"}
    assert served.client.get("/nowhere").status_code == 403, "what may not call does not learn which routes there are"


@pytest.mark.parametrize(
    ("own", "statements", "passes"),
    [
        (True, [{"Condition": ELSEWHERE}], True),  # either of the two can allow it
        (False, [{}], True),
        (False, [{"Principal": {"AWS": "arn:aws:iam::*:user/bob"}}], True),
        (False, [{"Principal": {"AWS": "arn:aws:iam::*:user/alice"}}], False),
        (False, [{"Condition": ELSEWHERE}], False),
        (False, [{"Principal": {"AWS": "arn:aws:iam::*:root"}}], False),
        (True, [{}, {"Effect": "Deny", "Condition": HERE}], False),
        (True, [{}, {"Effect": "Deny", "Condition": {"StringNotEquals": {"aws:username": "alice"}}}], False),
        (True, [{}, {"Effect": "Deny", "Condition": {"StringNotEquals": {"aws:username": "bob"}}}], True),
    ],
    ids=str,
)
def test_a_policy_and_those_of_who_signs_add_up_as_on_aws(
    served: Gateways, own: bool, statements: list[dict[str, Any]], passes: bool
) -> None:
    bob(served.account, inlinePolicies={"pets": PETS} if own else {})
    served.serve(auth="iam", policy=policy(*statements), routes=ROUTES)
    answer = send(served, signed(served, served.account.give("bob"), "/pets"))
    assert answer.status_code == (200 if passes else 403), answer.text
    if not passes:
        assert answer.json()["Message"].startswith("User: arn:aws:iam::")


def test_a_policy_is_asked_about_who_signs_for_the_docs_page_too(served: Gateways) -> None:
    only_bob = policy({"Principal": {"AWS": "arn:aws:iam::*:user/bob"}})
    served.serve(policy=only_bob, docs={"path": "/docs", "auth": "iam"}, routes=OPEN)
    assert send(served, signed(served, served.account.give("bob"), "/docs/openapi.json")).status_code == 200
    assert served.client.get("/docs/openapi.json").status_code == 403
    assert served.client.get("/pets").status_code == 403


def test_a_page_that_says_itself_who_may_see_it_needs_no_key(served: Gateways) -> None:
    for docs, status in (({"path": "/docs"}, 403), ({"path": "/docs", "auth": "none"}, 200)):
        served.serve(apiKeyRequired=True, docs=docs, routes=OPEN)
        assert served.client.get("/docs/openapi.json").status_code == status
        assert served.client.get("/pets").status_code == 403


def test_a_policy_has_to_allow_it_before_an_authorizer_is_asked(served: Gateways) -> None:
    login = {"login": {"type": "jwt", "issuer": "http://127.0.0.1:1", "audience": ["a"]}}
    served.serve(policy=policy({"Condition": ELSEWHERE}), authorizers=login, auth="login", routes=ROUTES)
    assert served.client.get("/pets").status_code == 403
    served.serve(policy=policy({}), authorizers=login, auth="login", routes=ROUTES)
    assert served.client.get("/pets").status_code == 401


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ({"Action": "lambda:InvokeFunction"}, "lambda:InvokeFunction is no action of execute-api"),
        ({"Action": "*"}, "* is no action of execute-api"),
        ({"NotAction": "execute-api:Invoke", "Action": None}, "Action, not NotAction"),
        ({"Resource": "/pets"}, "Resource"),
        ({"Principal": None}, "exactly one of Principal or NotPrincipal"),
    ],
)
def test_a_policy_of_something_else_is_refused(statement: dict[str, Any], told: str) -> None:
    document = policy(statement)
    document["Statement"] = {k: v for k, v in document["Statement"][0].items() if v is not None}
    with pytest.raises(InvalidError) as error:
        Account().resource("gateway", "api", {"port": 8080, "routes": {}, "policy": document})
    assert told in str(error.value)


def test_a_policy_is_checked_with_the_ledger(served: Gateways) -> None:
    account = served.account
    wrong = [
        ({"Action": "execute-api:Invok"}, "did you mean the action 'execute-api:Invoke'?"),
        ({"Resource": "arn:aws:execute-api:eu-west-1:*:api/*"}, "has the region 'eu-west-1'"),
        ({"Principal": {"AWS": "arn:aws:iam::*:user/nobody"}}, "nobody"),
    ]
    for statement, told in wrong:
        with pytest.raises(InvalidError) as error:
            account.change({("gateway", "api"): {"port": 8080, "routes": {}, "policy": policy(statement)}})
        assert told in str(error.value)
    account.change(
        {
            ("gateway", "api"): {
                "port": 8080,
                "routes": {},
                "policy": policy({"Principal": {"AWS": "arn:aws:iam::*:user/bob"}}),
            }
        }
    )
    arn = f"arn:aws:execute-api:us-east-1:{account.state.scope.account}:api/$default/GET/pets"
    bob(account)
    assert account.state.decide("bob", "execute-api:Invoke", arn).allowed, "owsgit why sees the gateway's policy"


def test_the_how_to_pages_examples_are_taken() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/authorize-requests.md").read_text()
    documents = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", page, re.M | re.S)]
    account = Account()
    account.change({("policy", "orders"): next(each for each in documents if "Statement" in each)})
    assert [account.resource("gateway", "shop", each).name for each in documents if "port" in each]


def test_a_resource_of_stars_is_read_in_no_time() -> None:
    """Each as long as it may be took a minute, and a policy has room for thirty."""
    policy = GatewayPolicy.model_validate(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": each}
                for each in (
                    "arn:aws:execute-api:*:*:" + "*" * 1_990,
                    "execute-api:/" + "*" * 1_990,
                    "execute-api:/b" + "*" * 1_990,
                )
            ],
        }
    )
    assert [path for path, _ in unmatched(policy, "shop", ["a"])] == ["Statement[2].Resource"]
