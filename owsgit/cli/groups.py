"""Nouns whose commands have a module each."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class ModuleGroup(click.Group):
    """`modules`: command → the module that has it as `command`, imported when it is called."""

    def __init__(self, *arguments: Any, modules: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        command: click.Command = importlib.import_module(self._modules[cmd_name]).command
        return command
