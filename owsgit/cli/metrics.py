"""`owsgit metrics`: what a node counts."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone


@output.command("metrics")
@remote.role_option
@remote.node_option
def command(role: str | None, remote: str) -> Result:
    """Show a node's metrics, as Prometheus reads them. Needs cloudwatch:GetMetricData on the project."""
    text = fetch(remote, role)
    families = [
        {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "samples": [
                {"name": sample.name, "labels": sample.labels, "value": sample.value} for sample in family.samples
            ],
        }
        for family in text_string_to_metric_families(text)
    ]
    return Result(families, Table(lines=text.rstrip("\n").split("\n")))


def fetch(node: str, role: str | None) -> str:
    """The text of the node's metrics."""
    return remote.find(Clone(Path()), node).call("metrics", *remote.role_words(role)).decode()
