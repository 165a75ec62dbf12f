"""What AWS's documentation says of its example policies, as decisions. Each case names the page of the IAM User Guide
(https://docs.aws.amazon.com/IAM/latest/UserGuide/<page>.html) whose claim it holds us to."""

from typing import Any

import pytest

from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument


def rule(effect: str, action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    given = {} if "NotAction" in more else {"Action": action}
    return {"Effect": effect, **given, "Resource": resource, **more}


MFA = rule("Deny", NotAction=["iam:ChangePassword", "sts:GetSessionToken"],
           Condition={"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}})  # fmt: skip
REGIONS = rule("Deny", NotAction=["iam:*", "route53:*", "support:*"],
               Condition={"StringNotEquals": {"aws:RequestedRegion": ["eu-central-1", "eu-west-1"]}})  # fmt: skip
ADDRESSES = rule("Deny", Condition={"NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "203.0.113.0/24"]},
                                    "Bool": {"aws:ViaAWSService": "false"}})  # fmt: skip
HOME = [
    rule("Allow", "s3:ListBucket", "arn:aws:s3:::homes",
         Condition={"StringLike": {"s3:prefix": ["", "home/", "home/${aws:username}/*"]}}),
    rule("Allow", "s3:*", ["arn:aws:s3:::homes/home/${aws:username}", "arn:aws:s3:::homes/home/${aws:username}/*"]),
]  # fmt: skip
DATES = rule("Allow", "dynamodb:*",
             Condition={"DateGreaterThan": {"aws:CurrentTime": "2020-04-01T00:00:00Z"},
                        "DateLessThan": {"aws:CurrentTime": "2020-06-30T23:59:59Z"}})  # fmt: skip
TAGS = rule("Allow", "ec2:CreateTags", "arn:aws:ec2:*:*:instance/*",
            Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["preprod", "storage"]}})  # fmt: skip
OWNER = rule("Allow", ["ec2:StartInstances", "ec2:StopInstances"], "arn:aws:ec2:*:*:instance/*",
             Condition={"StringEquals": {"aws:ResourceTag/Owner": "${aws:username}"}})  # fmt: skip
ATTRIBUTES = rule("Allow", "dynamodb:GetItem", "arn:aws:dynamodb:*:*:table/GameScores",
                  Condition={"ForAllValues:StringEquals": {"dynamodb:Attributes": ["ID", "Message", "Tags"]}})  # fmt: skip
EVERYTHING = rule("Allow")
S3, EC2 = "arn:aws:s3:::homes", "arn:aws:ec2:eu-west-1:123456789012:instance/i-1"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/GameScores"


@pytest.mark.parametrize(
    ("page", "statements", "action", "arn", "keys", "allowed"),
    [
        ("reference_policies_examples_aws_deny-requested-region", [EVERYTHING, REGIONS], "ec2:RunInstances", EC2,
         {"aws:RequestedRegion": "us-east-1"}, False),
        ("reference_policies_examples_aws_deny-requested-region", [EVERYTHING, REGIONS], "ec2:RunInstances", EC2,
         {"aws:RequestedRegion": "eu-west-1"}, True),
        ("reference_policies_examples_aws_deny-requested-region", [EVERYTHING, REGIONS], "iam:CreateUser", "*",
         {"aws:RequestedRegion": "us-east-1"}, True),
        ("reference_policies_examples_aws_deny-requested-region", [REGIONS], "iam:CreateUser", "*",
         {"aws:RequestedRegion": "us-east-1"}, False),
        ("reference_policies_examples_aws_deny-ip", [EVERYTHING, ADDRESSES], "s3:GetObject", S3,
         {"aws:SourceIp": "203.0.113.9", "aws:ViaAWSService": "false"}, True),
        ("reference_policies_examples_aws_deny-ip", [EVERYTHING, ADDRESSES], "s3:GetObject", S3,
         {"aws:SourceIp": "198.51.100.1", "aws:ViaAWSService": "false"}, False),
        ("reference_policies_examples_aws_deny-ip", [EVERYTHING, ADDRESSES], "s3:GetObject", S3,
         {"aws:SourceIp": "198.51.100.1", "aws:ViaAWSService": "true"}, True),
        ("reference_policies_examples_aws-dates", [DATES], "dynamodb:Query", TABLE,
         {"aws:CurrentTime": "2020-05-01T00:00:00Z"}, True),
        ("reference_policies_examples_aws-dates", [DATES], "dynamodb:Query", TABLE,
         {"aws:CurrentTime": "2020-07-01T00:00:00Z"}, False),
        ("reference_policies_examples_s3_home-directory-console", HOME, "s3:ListBucket", S3,
         {"aws:username": "bob", "s3:prefix": "home/bob/x"}, True),
        ("reference_policies_examples_s3_home-directory-console", HOME, "s3:ListBucket", S3,
         {"aws:username": "bob", "s3:prefix": "home/eve/x"}, False),
        ("reference_policies_examples_s3_home-directory-console", HOME, "s3:PutObject", S3 + "/home/bob/x",
         {"aws:username": "bob"}, True),
        ("reference_policies_examples_s3_home-directory-console", HOME, "s3:PutObject", S3 + "/home/bobby/x",
         {"aws:username": "bob"}, False),
        ("reference_policies_condition-keys#condition-keys-multifactorauthpresent", [EVERYTHING, MFA], "s3:GetObject", S3,
         {}, False),
        ("reference_policies_condition-keys#condition-keys-multifactorauthpresent", [EVERYTHING, MFA], "s3:GetObject", S3,
         {"aws:MultiFactorAuthPresent": "true"}, True),
        ("reference_policies_condition-keys#condition-keys-multifactorauthpresent", [EVERYTHING, MFA],
         "iam:ChangePassword", "*", {}, True),
        ("reference_policies_condition-single-vs-multi-valued-context-keys", [TAGS], "ec2:CreateTags", EC2,
         {"aws:TagKeys": ["preprod"]}, True),
        ("reference_policies_condition-single-vs-multi-valued-context-keys", [TAGS], "ec2:CreateTags", EC2,
         {"aws:TagKeys": ["preprod", "other"]}, False),
        ("reference_policies_condition-single-vs-multi-valued-context-keys", [TAGS], "ec2:CreateTags", EC2, {}, True),
        ("reference_policies_examples_ec2_tag-owner", [OWNER], "ec2:StopInstances", EC2,
         {"aws:username": "bob", "aws:ResourceTag/Owner": "bob"}, True),
        ("reference_policies_examples_ec2_tag-owner", [OWNER], "ec2:StopInstances", EC2,
         {"aws:username": "bob", "aws:resourcetag/owner": "Bob"}, False),
        ("reference_policies_examples_ec2_tag-owner", [OWNER], "ec2:StopInstances", EC2, {"aws:username": "bob"}, False),
        ("reference_policies_examples_dynamodb_attributes", [ATTRIBUTES], "dynamodb:GetItem", TABLE,
         {"dynamodb:Attributes": ["ID", "Tags"]}, True),
        ("reference_policies_examples_dynamodb_attributes", [ATTRIBUTES], "dynamodb:GetItem", TABLE,
         {"dynamodb:Attributes": ["ID", "UserName"]}, False),
    ],
)  # fmt: skip
def test_what_the_page_says(
    page: str, statements: list[dict[str, Any]], action: str, arn: str, keys: dict[str, Any], allowed: bool
) -> None:
    document = PolicyDocument.model_validate({"Version": "2012-10-17", "Statement": statements})
    policies = compile_policies([AttachedPolicy("p.json", "$", document)])
    decision = decide("bob", policies, action, arn, Context.of(keys))
    assert decision.allowed is allowed, f"{page}: {decision.reason}"
