"""The state of a project, and what changes of it need."""

import json
from typing import Any

import pytest

from owsgit.model.change import Change, Verb
from owsgit.model.errors import InvalidError
from owsgit.model.iam.decision import Session
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.reconcile import plan
from owsgit.services import KINDS
from tests.support import projects
from tests.support.people import Person
from tests.support.projects import allow, function


def resource(kind: str, name: str, document: dict[str, Any], code: str | None = None) -> Resource:
    found = KINDS[kind]
    data = json.dumps(document).encode()
    return Resource(found, name, found.spec.parse(data, found.file(name)), f"{hash(data):x}", code, code)


def created(*resources: Resource) -> list[Change]:
    return [Change(None, each) for each in resources]


@pytest.fixture
def state(alice: Person, bob: Person) -> State:
    return (
        State.empty(KINDS)
        .born("ab" * 20)
        .after(
            created(
                resource("project", "", {"name": "shop", "roots": ["alice"]}),
                resource("user", "alice", {"keys": [alice.public]}),
                resource("user", "bob", {"keys": [bob.public], "policies": ["own"]}),
                resource("group", "ops", {"members": ["bob"], "policies": ["ops"]}),
                resource("policy", "own", allow("lambda:GetFunction")),
                resource("policy", "ops", allow("logs:*")),
                resource("function", "f", function(), "1" * 40),
                resource("gateway", "api", {"port": 80, "routes": {"GET /": {"function": "f"}}}),
            )
        )
    )


def problems(state: State, *changes: Change) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        state.after(changes)
    return [str(problem) for problem in caught.value.problems]


def test_rights_come_from_own_policies_groups_and_being_root(state: State) -> None:
    assert state.decide("bob", "lambda:GetFunction", "arn:aws:x:::y").allowed
    assert (
        state.decide("bob", "logs:GetLogEvents", "arn:aws:x:::y").reason
        == "allowed by policies/ops.json $.Statement[0]"
    )
    assert not state.decide("bob", "iam:CreateUser", "arn:aws:x:::y").allowed
    assert state.decide("alice", "iam:CreateUser", "arn:aws:x:::y").allowed
    assert not state.decide("nobody", "lambda:GetFunction", "arn:aws:x:::y").allowed


def test_a_route_to_a_missing_function_names_the_nearest(state: State) -> None:
    gateway = resource("gateway", "b", {"port": 81, "routes": {"GET /x y".replace(" y", ""): {"function": "ff"}}})
    (problem,) = problems(state, *created(gateway))
    assert problem.startswith("gateways/b.json $.routes['GET /x'].function: there is no function 'ff'")


def test_a_plan_without_its_gateway_is_told_once(state: State) -> None:
    api = {"gateway": "b", "stage": "live", "throttle": {"GET /": {"rate": 1, "burst": 1}}}
    (problem,) = problems(state, *created(resource("usageplan", "p", {"apis": [api]})))
    assert problem == "usageplans/p.json $.apis[0].gateway: there is no gateway 'b': gateways/b.json is missing"


def test_what_is_still_referred_to_cannot_go(state: State) -> None:
    assert problems(state, Change(state.get("function", "f"), None))[0].startswith(
        "gateways/api.json $.routes['GET /'].function"
    )
    assert problems(state, Change(state.get("user", "bob"), None))[0].startswith("groups/ops.json $.members[0]")
    gone = state.after([Change(state.get("gateway", "api"), None), Change(state.get("function", "f"), None)])
    assert gone.get("function", "f") is None


def test_a_port_and_a_key_belong_to_one_resource_only(state: State, bob: Person) -> None:
    (problem,) = problems(state, *created(resource("gateway", "b", {"port": 80, "routes": {}})))
    assert problem == "gateways/b.json $.port: port 80 is used by gateways/api.json already"
    (problem,) = problems(state, *created(resource("user", "eve", {"keys": [bob.public + " other comment"]})))
    assert "is used by users/bob.json already" in problem


def test_a_port_and_a_key_can_move_in_one_commit(state: State, bob: Person) -> None:
    after = state.after(
        [
            Change(state.get("gateway", "api"), resource("gateway", "api", {"port": 81, "routes": {}})),
            *created(resource("gateway", "b", {"port": 80, "routes": {}})),
            Change(state.get("user", "bob"), resource("user", "bob", {"policies": ["own"]})),
            *created(resource("user", "robert", {"keys": [bob.public]})),
        ]
    )
    held = [found.key for found in (after.holder("port", "80"), state.holder("port", "80")) if found is not None]
    assert held == ["gateways/b", "gateways/api"], "the state before is as it was"


def needs(change: Change, state: State) -> list[tuple[str, str]]:
    return [(need.action, need.arn.rsplit(":", 1)[-1]) for need in change.needs(state.scope, KINDS)]


def test_each_field_needs_its_own_action(state: State, bob: Person) -> None:
    before = state.get("user", "bob")
    assert needs(
        Change(before, resource("user", "bob", {"keys": [bob.public], "policies": ["own", "ops"]})), state
    ) == [("iam:AttachUserPolicy", "user/bob")]
    assert needs(Change(before, resource("user", "bob", {"keys": [], "policies": ["own"]})), state) == [
        ("iam:DeleteSSHPublicKey", "user/bob")
    ]
    assert needs(
        Change(before, resource("user", "bob", {"keys": [bob.public], "policies": ["ops"], "email": "b@x"})), state
    ) == [
        ("iam:UpdateUser", "user/bob"),
        ("iam:AttachUserPolicy", "user/bob"),
        ("iam:DetachUserPolicy", "user/bob"),
    ]
    assert needs(Change(before, None), state) == [
        ("iam:DeleteUser", "user/bob"),
        ("iam:DeleteSSHPublicKey", "user/bob"),
        ("iam:DetachUserPolicy", "user/bob"),
    ]


def test_inline_policies_and_members_are_guarded_one_by_one(state: State) -> None:
    group = state.get("group", "ops")
    more = resource(
        "group", "ops", {"members": ["bob", "alice"], "policies": ["ops"], "inlinePolicies": {"x": allow("*")}}
    )
    assert needs(Change(group, more), state) == [
        ("iam:PutGroupPolicy", "group/ops"),
        ("iam:AddUserToGroup", "group/ops"),
    ]
    assert needs(Change(more, group), state) == [
        ("iam:DeleteGroupPolicy", "group/ops"),
        ("iam:RemoveUserFromGroup", "group/ops"),
    ]


def test_a_reordered_list_is_a_change_too(state: State) -> None:
    one = resource("user", "x", {"policies": ["own", "ops"]})
    other = resource("user", "x", {"policies": ["ops", "own"]})
    assert needs(Change(one, other), state) == [("iam:AttachUserPolicy", "user/x")]


def test_creating_with_rights_needs_the_rights_actions_too(state: State) -> None:
    change = Change(None, resource("user", "eve", {"policies": ["ops"]}))
    assert needs(change, state) == [("iam:CreateUser", "user/eve"), ("iam:AttachUserPolicy", "user/eve")]


def test_giving_a_role_to_a_function_needs_pass_role(state: State) -> None:
    state = state.after(created(resource("role", "reader", {"policies": ["own"]})))
    before = state.get("function", "f")
    with_role = resource("function", "f", function(role="reader"), "1" * 40)
    assert ("iam:PassRole", "role/reader") in needs(Change(before, with_role), state)
    again = resource("function", "f", function(role="reader", timeout=9), "1" * 40)
    assert ("iam:PassRole", "role/reader") not in needs(Change(with_role, again), state)


def test_code_and_configuration_are_two_actions(state: State) -> None:
    before = state.get("function", "f")
    code = Change(before, before, ("functions/f/app.py",))
    assert needs(code, state) == [("lambda:UpdateFunctionCode", "f")]
    both = Change(before, resource("function", "f", function(timeout=9), "2" * 40), ("functions/f/app.py",))
    assert [action for action, _ in needs(both, state)] == [
        "lambda:UpdateFunctionCode",
        "lambda:UpdateFunctionConfiguration",
    ]
    assert both.verb is Verb.UPDATE


def test_a_gateway_cannot_have_a_nodes_port(state: State) -> None:
    node = resource("node", "n", {"key": NODE_KEY, "address": "10.0.0.1", "ports": {"ssh": 7022}})
    with_node = state.after(created(node))
    assert (
        "port 7022 is used by nodes/n.json already"
        in problems(with_node, *created(resource("gateway", "b", {"port": 7022, "routes": {}})))[0]
    )
    other = resource("node", "m", {"key": NODE_KEY, "address": "10.0.0.2", "ports": {"ssh": 80}})
    assert "port 80 is used by gateways/api.json already" in problems(state, *created(other))[0]


NODE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJT1v+2IQ273o5HMPrGW/EISKyT7RkigUzWyCfHixaOq"


def trust(*principals: dict[str, Any]) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} for principal in principals
        ],
    }


LAMBDA = {"Service": "lambda.amazonaws.com"}
INVOKE = "lambda:InvokeFunction"


def test_a_functions_role_has_to_trust_lambda(state: State) -> None:
    role = resource("role", "r", {"trust": trust({"AWS": "arn:aws:iam::*:user/bob"})})
    user = resource("function", "g", function(role="r"), "2" * 40)
    (problem,) = problems(state, *created(role, user))
    assert problem.startswith("functions/g/function.json $.role: the role r cannot be taken on by lambda.amazonaws.com")
    good = resource("role", "r", {"trust": trust(LAMBDA)})
    found = state.after(created(good, user))
    (later,) = problems(found, Change(good, role))
    assert "functions/g/function.json $.role: the role r cannot be taken on" in later, "and has to go on trusting it"


def test_trust_can_be_bound_to_one_function(state: State) -> None:
    arn = state.scope.arn("arn:aws:lambda:{region}:{account}:function:{name}", "g")
    bound = trust(LAMBDA)
    bound["Statement"][0]["Condition"] = {"ArnEquals": {"aws:SourceArn": arn}}
    role = resource("role", "r", {"trust": bound})
    state.after(created(role, resource("function", "g", function(role="r"), "2" * 40)))
    assert "$.role" in problems(state, *created(role, resource("function", "h", function(role="r"), "2" * 40)))[0]


def test_a_role_is_taken_on_by_whom_it_trusts_and_gives_its_own_rights_alone(state: State) -> None:
    role = resource("role", "r", {"trust": trust({"AWS": "arn:aws:iam::*:user/bob"}), "policies": ["invoke"]})
    found = state.after(created(role, resource("policy", "invoke", allow(INVOKE))))
    session = Session("r", "bob-1")
    assert found.assume("bob", session).allowed
    assert "no role" in found.assume("bob", Session("s", "bob-1")).reason
    arn = found.get("function", "f").arn(found.scope)  # type: ignore[union-attr]
    assert found.decide(session, INVOKE, arn).allowed and not found.decide("bob", INVOKE, arn).allowed
    assert not found.decide(session, "lambda:GetFunction", arn).allowed, "not the user's own rights"
    assert not found.decide(session, "iam:CreateUser", arn).allowed
    alone = resource("role", "s", {"policies": ["invoke"]})
    nobody = found.after(created(alone)).assume("bob", Session("s", "bob-1"))
    assert nobody.reason == "roles/s.json trusts nobody ($.trust)"
    assert found.assume("alice", session).allowed and not found.decide(session, "iam:CreateUser", arn).allowed


def test_a_functions_own_policy_gives_and_denies(state: State) -> None:
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::*:user/bob"}, "Action": INVOKE, "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "lambda:GetFunction", "Resource": "*"},
    ]
    made = resource("function", "g", function(policy={"Statement": statements}), "2" * 40)
    found = state.after(created(made))
    arn = made.arn(found.scope)
    assert found.decide("bob", INVOKE, arn).reason == "allowed by functions/g/function.json $.policy.Statement[0]"
    assert not found.decide("bob", INVOKE, arn.replace(":g", ":f")).allowed
    denied = found.decide("bob", "lambda:GetFunction", arn)
    assert denied.reason == "denied by functions/g/function.json $.policy.Statement[1]"
    assert [need.action for need in Change(None, made).needs(found.scope, found.kinds)] == [
        "lambda:CreateFunction",
        "lambda:AddPermission",
    ], "and whom it names is passed nothing"


def test_whom_a_policy_names_has_to_be_there(state: State) -> None:
    gone = {"AWS": "arn:aws:iam::*:user/bobby"}
    assert "there is no user 'bobby'" in problems(state, *created(resource("role", "r", {"trust": trust(gone)})))[0]
    found = state.after(created(resource("role", "r", {"trust": trust({"AWS": "arn:aws:iam::*:user/bob"})})))
    left = [Change(found.get("user", "bob"), None), Change(found.get("group", "ops"), None)]
    assert problems(found, *left)[0].startswith("roles/r.json $.trust.Statement[0]")


def test_another_accounts_number_is_refused(state: State) -> None:
    (problem,) = problems(state, *created(resource("role", "r", {"trust": trust({"AWS": "123456789012"})})))
    assert f"is of another account than this project's, {state.scope.account}" in problem


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (True, 1), (0, False)])
def test_values_that_python_takes_for_equal_are_a_change(state: State, before: object, after: object) -> None:
    """A Deny that asks for 1 is not one that asks for true."""

    def user(value: object) -> Resource:
        deny = {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"StringEquals": {"lambda:Timeout": value}},
        }
        return resource("user", "dan", {"inlinePolicies": {"own": {"Statement": deny}}})

    change = Change(user(before), user(after))
    needs = {need.action: need for need in change.needs(state.scope, state.kinds)}
    assert set(needs) == {"iam:PutUserPolicy", "iam:DeleteUserPolicy"}
    assert needs["iam:PutUserPolicy"].keys["ows:ChangedFields"] == ("inlinePolicies",)


def test_another_key_makes_another_node(state: State) -> None:
    one, other = (resource("node", "n", {"key": projects.node_key(), "address": "n.example.com"}) for _ in range(2))
    needs = [need.action for need in Change(one, other).needs(state.scope, state.kinds)]
    assert needs == ["ows:AddNode", "ows:RemoveNode"]


def test_a_route_to_a_function_needs_the_right_to_let_the_gateway_call_it(state: State) -> None:
    made = resource("gateway", "b", {"port": 81, "routes": {"GET /x": {"function": "f"}}})
    needs = {need.action: need for need in Change(None, made).needs(state.scope, state.kinds)}
    assert set(needs) == {"apigateway:POST", "lambda:AddPermission"}
    assert needs["lambda:AddPermission"].keys["lambda:Principal"] == "apigateway.amazonaws.com"
    assert needs["lambda:AddPermission"].arn.endswith(":function:f")


@pytest.mark.parametrize(
    ("arn", "told"),
    [
        (
            "arn:aws:lambda:us-east-1:123456789012:function:f",
            "has the account '123456789012', and no resource of this project has",
        ),
        (
            "arn:aws:lambda:eu-west-1:*:function:f",
            "has the region 'eu-west-1', and no resource of this project has: it is 'us-east-1' there",
        ),
        ("arn:aws:iam::123456789012:user/bob", "has the account '123456789012', and no resource of this project has"),
    ],
)
def test_arns_of_elsewhere_are_refused_as_they_would_guard_nothing(state: State, arn: str, told: str) -> None:
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": arn}]}
    (problem,) = problems(state, *created(resource("policy", "p", deny)))
    assert told in problem
    own = arn.replace("123456789012", state.scope.account).replace("eu-west-1", "us-*")
    deny["Statement"][0]["Resource"] = [own, "arn:aws:s3:::bucket", "arn:aws:sqs:eu-west-1:123456789012:queue"]  # type: ignore[index]
    state.after(created(resource("policy", "p", deny)))


@pytest.mark.parametrize(
    ("arn", "told"),
    [
        ("arn:aws:iam:us-east-1:*:user/*", "has the region 'us-east-1'"),
        ("arn:aws-cn:iam::*:user/*", "has the partition 'aws-cn'"),
        ("arn:aws:lambda:us-east-1::function:*", "has the account ''"),
    ],
)
def test_arns_of_another_form_are_refused_too(state: State, arn: str, told: str) -> None:
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": arn}]}
    assert told in problems(state, *created(resource("policy", "p", deny)))[0]


def test_arns_of_aws_itself_pass(state: State) -> None:
    arns = [
        "arn:aws:iam::aws:policy/ReadOnlyAccess",
        "arn:aws:lambda:us-west-2:aws:layer:x",
        "arn:aws:apigateway:us-east-1::/apis/*",
    ]
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "NotResource": arns}]}
    state.after(created(resource("policy", "p", deny)))


def test_whose_approval_a_policy_asks_for_cannot_go_and_what_was_accepted_loads(state: State) -> None:
    asks = {"ForAnyValue:StringEquals": {"ows:Approver": "bob"}, "NumericGreaterThan": {"ows:ApprovalCount/ops": 1}}
    statement = {
        "Effect": "Allow",
        "Action": "lambda:*",
        "Resource": "arn:aws:lambda:us-east-1:*:function:f",
        "Condition": asks,
    }
    policy = resource("policy", "p", {"Version": "2012-10-17", "Statement": statement})
    found = state.after(created(policy))
    gone = [Change(found.get("user", "bob"), None), Change(found.get("group", "ops"), None)]
    told = problems(found, *gone)
    assert any("policies/p.json $.Statement.Condition" in each and "no user 'bob'" in each for each in told)
    assert any("no group 'ops'" in each for each in told)
    before = found.get("project", "")
    moved = resource("project", "", {"name": "shop", "roots": ["alice"], "region": "eu-west-1"})
    assert "has the region 'us-east-1'" in problems(found, Change(before, moved))[0]
    everything = [Change(None, each) for each in found.resources.values()]
    loaded = State.empty(KINDS).born(found.genesis).after(everything, trusted=True)
    assert set(loaded.resources) == set(found.resources)


def test_policies_may_name_each_others_owners_in_circles(state: State) -> None:
    def role(other: str) -> dict[str, Any]:
        return {"trust": trust({"AWS": f"arn:aws:iam::*:role/{other}"})}

    found = state.after(created(resource("role", "r", role("s")), resource("role", "s", role("r"))))
    made = plan.make({}, found.resources)
    assert {step.key for step in made.steps} == set(found.resources)


def test_slips_in_names_of_people_and_services_are_told(state: State) -> None:
    asks = {"ForAnyValue:StringEquals": {"ows:Approver": ["bob", "carroll"], "ows:ApproverGroup": "opps"}}
    document = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": asks}]}
    found = problems(state, *created(resource("policy", "p", document)))
    assert any("there is no user 'carroll'" in each for each in found)
    assert any("there is no group 'opps'" in each for each in found)
    slip = trust({"Service": "lamda.amazonaws.com"}, {"Service": "ec2.amazonaws.com"})
    (problem,) = problems(state, *created(resource("role", "r", {"trust": slip})))
    assert "lamda.amazonaws.com is no service that acts here" in problem
    (empty,) = problems(state, *created(resource("policy", "p", {"Statement": []})))
    assert "a policy without a statement says nothing" in empty


def test_a_deny_in_a_roles_policy_cannot_ask_for_the_users_name(state: State) -> None:
    deny = {"Statement": {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::${aws:username}"}}
    inline = {"Version": "2012-10-17", **deny}
    (problem,) = problems(state, *created(resource("role", "r", {"inlinePolicies": {"p": inline}})))
    assert "${aws:username} never has a value here" in problem
    state.after(created(resource("user", "dan", {"inlinePolicies": {"p": inline}})))


AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBfDCCASGgAwIBAgIUcSNRKgP64oXWNrOWjOD0nWnbMJkwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIUGFydG5lcnMwHhcNMjYxMTI0MTk1NjI1WhcNMjYxMjI0MTk1
NjI1WjATMREwDwYDVQQDDAhQYXJ0bmVyczBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABMOHBPS8IyG5168va2do8D0cxTRGuzNYzkiC7T2q+UlVVp2tL+VaabqPUlSj
xp+ZM4jgT73WFmYvTr94KqRWQlqjUzBRMB0GA1UdDgQWBBSJTZrhxIouvCgEJABQ
HXu+ESBE/zAfBgNVHSMEGDAWgBSJTZrhxIouvCgEJABQHXu+ESBE/zAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQDGSPCtr+QP4JAw6cuIgTuGTok+
wN2UYd6aGwoIr8n4LQIhAPefhnZqsR7O6Stmh5LmkcJiHfUeIRKk77jk67XcDqVH
-----END CERTIFICATE-----
"""
"""A certificate that signs those of clients."""


def secure(host: str = "", port: int = 443, secret: str = "cert", **tls: Any) -> dict[str, Any]:
    domains = [{"name": host, "basePath": base} for base in tls.pop("bases", [""])] if host else []
    about = {"certificate": {"secret": secret}, **tls}
    return {"port": port, "domains": domains, "tls": about, "routes": {"GET /": {"function": "f"}}}


@pytest.fixture
def guarded(state: State) -> State:
    trust = {"truststore": AUTHORITY}
    first = secure("m.test", bases=["/one"], mutualTls=trust, redirectPort=8080)
    return state.after(created(resource("gateway", "first", first)), unfinished=True)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"port": 443, "domains": [{"name": "x.test"}], "routes": {}}, "TLS of port 443 is served in another way by gateways/first.json"),
        (secure("x.test", port=80), "TLS of port 80 is served in another way by gateways/api.json"),
        (secure("m.test", bases=["/two"]), "TLS of port 443 for m.test"),
        (secure("m.test", bases=["/two"], secret="other", mutualTls={"truststore": AUTHORITY}), "TLS of port 443 for m.test"),
        (secure("m.test", port=444, redirectPort=8080), "port 8080 at m.test/"),
        ({"port": 8080, "domains": [{"name": "m.test"}], "routes": {}}, "port 8080 at m.test/ is used by gateways/first.json"),
        (secure("x.test", redirectPort=80), ""),
        (secure("m.test", bases=["/two"], mutualTls={"truststore": AUTHORITY}, redirectPort=8080), ""),
        (secure("x.test", secret="other"), ""),
        (secure(), ""),
    ],
)  # fmt: skip
def test_gateways_that_share_a_port_agree_on_its_tls(guarded: State, document: dict[str, Any], said: str) -> None:
    second = resource("gateway", "second", document)
    if not said:
        after = guarded.after(created(second), unfinished=True)
        before = after.after([Change(after.get("gateway", "second"), None)], unfinished=True)
        assert before.claims == guarded.claims
        return
    assert any(said in problem for problem in problems(guarded, *created(second)))
    replaced = [Change(guarded.get("gateway", name), None) for name in ("first", "api")]
    guarded.after([*replaced, *created(second)], unfinished=True)
