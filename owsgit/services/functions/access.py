"""Which rights calls to functions need: one place for `owsgit invoke` and for Lambda's API."""

from collections.abc import Iterator

from owsgit.aws.api import Need
from owsgit.model.iam.decision import ResourcePolicy

INVOKE = "lambda:InvokeFunction"
FUNCTION_ARN = "lambda:FunctionArn"


def to_invoke(arn: str, qualifier: str, policy: ResourcePolicy | None = None) -> Iterator[Need]:
    """A version (f:live) needs the right to invoke that very version, as on AWS; whom the function itself is denied to,
    its versions are denied to as well. `policy` is the function's own, and speaks of the function itself.
    """
    context = {FUNCTION_ARN: arn}
    if qualifier:
        yield Need(INVOKE, f"{arn}:{qualifier}", context)
    yield Need(INVOKE, arn, context, policy, denied_only=bool(qualifier))
