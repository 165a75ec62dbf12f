"""What DynamoDB answers to a request that it cannot accept."""

from owsgit.aws.api import ServiceError

INVALID = "One or more parameter values were invalid: "
NOT_VALID = "One or more parameter values are not valid. "


class ValidationError(ServiceError):
    """AWS's ValidationException (400), with the words of DynamoDB."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)
