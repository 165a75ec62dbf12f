"""What a worker has to know of its function."""

from dataclasses import dataclass, field
from pathlib import Path

from owsgit.model.errors import OwsgitError


@dataclass(frozen=True)
class FunctionConfig:
    """All that a worker has to know of its function. Sizes in MiB, times in seconds."""

    name: str
    arn: str
    runtime: str
    handler: str
    code: Path
    timeout: float
    memory_size: int
    environment: dict[str, str]
    region: str
    version: str
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """Environment variables that are in no log: what is written of them is masked."""

    secret_files: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Files by the name of the variable that carries their path."""

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.name}"


class InitError(OwsgitError):
    """The function's code could not be loaded; `report` is Lambda's error object."""

    def __init__(self, report: dict[str, object]) -> None:
        super().__init__(f"{report['errorType']}: {report['errorMessage']}", remedy="correct the code")
        self.report = report
