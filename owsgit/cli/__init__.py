"""The command line: one file per noun.

Data goes to standard output, progress and errors to standard error. Every command takes `--output table|json|yaml`.
Only this layer reads the environment. Subcommands are imported when they are called: `--help` imports only click.
"""

import sys

import click

from owsgit import __version__

EXIT_USAGE = 64
"""EX_USAGE of sysexits.h: click's own 2 is taken by `owsgit plan`, as with Terraform."""

COMMANDS = {
    "approve": "Approve a proposal, by a signed tag.",
    "audit": "Show who called which API of AWS's on the nodes.",
    "backup": "Write a node's whole home into one file.",
    "clone": "Clone the ledger of a project, trusting nothing but its project id.",
    "completion": "Print the completion script for a shell.",
    "configure": "Set other programs up for this project: the AWS CLI and the SDKs.",
    "connect": "Set this clone up for the project's nodes: host keys, remotes, allowed signers.",
    "credentials": "Print AWS credentials that are yours for an hour.",
    "dev": "Run one function of the working tree locally, with a debugger.",
    "doctor": "Check this machine, this clone and its nodes; say what to do about what is wrong.",
    "events": "List what waits for a function, and try dead letters again.",
    "gateway": "Look at gateways, try a request, make API keys, import and export OpenAPI documents.",
    "hooks": "Check commits and pushes in this clone before they leave the machine.",
    "init": "Make an infra repository with a signed genesis commit.",
    "invoke": "Call a function on a node.",
    "log": "Show the verified history: who changed what.",
    "logs": "Show what a function wrote, on all nodes.",
    "metrics": "Show what a node counts, as Prometheus reads it.",
    "mirror": "Push the merged main of a forge to the nodes.",
    "node": "Make, run, join and recover nodes.",
    "plan": "Show what a change would do.",
    "proposals": "List what waits for approvals.",
    "reject": "Reject a proposal, or withdraw your own.",
    "restore": "Make a node again from a backup.",
    "schema": "Print the JSON Schema of a kind of resource.",
    "secret": "Set, read and seal anew the secrets of the project.",
    "show": "Show a proposal: its plan, what is missing, what was said, its diff.",
    "status": "Show all nodes, what runs, and how it is.",
    "tables": "Move the items of tables: to files, from files, from DynamoDB.",
    "up": "Run the working tree on this machine, applying it at every save.",
    "validate": "Check the working tree against all rules; no node is needed.",
    "verify": "Check a whole history: signatures, permissions, rules, votes.",
    "why": "Explain whether a user may do something, and by which statement.",
}

EXIT_CODES = {
    0: "done",
    1: "refused, invalid, or failed; standard error says what, where, and what to do",
    2: "plan only: there are changes",
    3: "something that is needed is not there: a node, a program, a port",
    4: "invoke and dev only: the function answered with an error",
    EXIT_USAGE: "the command was called wrongly",
    130: "interrupted",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        import importlib  # noqa: PLC0415 - the point of this class

        from owsgit.node import compiled  # noqa: PLC0415

        compiled.check()  # before anything is imported that may not fit
        command: click.Command = importlib.import_module(f"owsgit.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # noqa: PLC0415

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"no such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
)
@click.version_option(__version__, prog_name="owsgit")
def owsgit() -> None:
    """Open Web Services on git: AWS's managed services on servers that you own, configured by signed commits."""


def main() -> None:
    """The `owsgit` program."""
    try:
        status = owsgit.main(standalone_mode=False, prog_name="owsgit")
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        sys.exit(_failed(error))
    sys.exit(status if isinstance(status, int) else 0)


def _failed(error: Exception) -> int:
    """Tell an error in words; a traceback only where the error is ours, and then into a file."""
    from owsgit.cli import failure  # noqa: PLC0415

    return failure.tell(error)


if __name__ == "__main__":
    main()
