"""What all commands have in common: help in groups with an example each, and options that several share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar

import click

from rumpbundle.cli.streams import say

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

_GENERAL = ("Options", "")


def group(title: str, example: str, *options: Decorator[Any]) -> tuple[Decorator[Any], ...]:
    """Return *options* as a group of the help, with an *example* of their use."""

    def titled(add: Decorator[Any]) -> Decorator[Any]:
        def decorate(function: Any) -> Any:
            function = add(function)
            function.__click_params__[-1].group = (title, example)
            return function

        return decorate

    return tuple(map(titled, options))


def options(*groups: tuple[Decorator[Any], ...]) -> Callable[[F], F]:
    """Return a decorator that adds all options of *groups*, in order."""

    def decorate(function: F) -> F:
        for each in reversed(groups):
            for add in reversed(each):
                function = add(function)
        return function

    return decorate


class Command(click.Command):
    """A command whose help shows its options in groups, and an *example* at its end."""

    def __init__(self, *arguments: Any, example: str = "", **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.example = example
        taken = {name for each in self.params for name in each.opts}
        for words, help in (
            ("-q --quiet", "Say nothing but errors."),
            ("-v --verbose", "Say more, where there is more."),
        ):
            if taken.isdisjoint(words.split()):
                self.params.append(click.Option(words.split(), is_flag=True, expose_value=False, help=help))

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return help_option(super().get_help_option(ctx))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for (title, example), rows in self._groups(ctx):
            with formatter.section(title):
                formatter.write_dl(rows)
                if example:
                    formatter.write(f"{'':{formatter.current_indent}}as in: {example}\n")

    def _groups(self, ctx: click.Context) -> Iterator[tuple[tuple[str, str], list[tuple[str, str]]]]:
        shown = [
            (getattr(each, "group", _GENERAL), each.get_help_record(ctx))
            for each in self.get_params(ctx)
            if isinstance(each, click.Option)
        ]
        # Those without a group come last: what every command has.
        shown.sort(key=lambda pair: pair[0] == _GENERAL)
        for key, pairs in groupby(shown, lambda pair: pair[0]):
            if rows := [record for _, record in pairs if record is not None]:
                yield key, rows

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                formatter.write(f"  {self.example}\n")


def help_option(option: click.Option | None) -> click.Option | None:
    """Return click's ``--help`` as one that prints as all else does."""

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            say(ctx.get_help(), styled=True)
            ctx.exit()

    if option is not None:
        option.callback = show
    return option


def completed(values: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a completion of *values*; of a list with commas its last part is completed."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{value}" for value in values() if value.startswith(last)]

    return complete
