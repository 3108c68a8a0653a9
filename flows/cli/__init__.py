"""The command line `dreampolish`. A user's mistake costs one line and exit code 2; an interruption 130; a fault of ours 1."""

import itertools
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = {
    "make": {
        "run": "Make a textured 3D asset from a prompt.",
        "resume": "Continue a stopped run; finished stages are taken from the store.",
        "texture": "Texture and export a run's mesh anew, as a new run; or, with --mesh, a mesh of your own, whose shape stays as it is.",
        "polish": "Polish the surface of a mesh of your own; with a prompt, paint it too.",
        "stage": "Compute one stage of a run alone.",
    },
    "share": {
        "report": "Tell what a run made, and write its page: report.html, which opens anywhere.",
        "compare": "Write one page that shows runs side by side, their cameras locked together.",
        "gallery": "Write a picture of each run's asset and an index of them all.",
        "export": "Write a run's asset once more, in any format and size, beside what it has.",
        "show": "Say what an asset's file tells of its making, and the command that makes it again.",
        "validate": "Check a 3D file: GLB by the Khronos validator (npm install gltf-validator) or, without it, by trimesh's glTF schema.",
    },
    "watch": {
        "watch": "Show a run while it goes on, in a browser: views, curves and the mesh so far.",
    },
    "study": {
        "ablate": "Run a study: the same subjects and seeds under several settings, compared.",
        "studies": "Write docs/studies from the results of studies.",
        "bench": "Measure the engine beside other ways of doing the same, and a run's stages; writes docs/benchmarks/performance.md.",
        "benchmark": "Measure every stage on objects whose true shape is known; writes docs/benchmarks.",
        "rehearse": "Rehearse a preset on real architectures with random weights: time and memory of every stage, and of a whole run.",
    },
    "service": {
        "up": "Start Prefect, MLflow and a worker on this machine and register the deployments.",
        "down": "Stop what `up` started; runs that go on write their checkpoints first.",
        "worker": "Serve the runs of a service of another machine, in this folder, until it is stopped; the store has to be shared.",
        "upload": "Put a picture or a mesh into the store and print its hash",
        "batch": "One run for each prompt of a file, on as many workers as there are.",
        "doctor": "Say what is wrong with this installation, its store and its services, and what mends it.",
    },
    "priors": {
        "data": "Render the furniture that the priors are trained on; takes hours.",
        "train": "Train the embedded priors on the rendered furniture; a stopped training goes on.",
        "check": "Say what folders of models are, what is missing in them, which licence and memory, and what to type.",
        "convert": "Turn pickled weights into a folder that can be opened; tensors only, once.",
        "fetch": "Download the models that a preset names in configs/models.yaml; goes on where it stopped.",
    },
    "store": {
        "ls": "List the runs of the store, the one touched last first; or what one of them names.",
        "du": "Say what takes the room of the store: by stage, by run, by study.",
        "gc": "Make room: results that no run names, and what the store's settings say. Without --yes nothing is removed.",
        "verify": "Compare every file of every result with its hash.",
        "push": "Send runs with their results to a folder or a bucket (s3://...); goes on where it stopped.",
        "pull": "Bring runs with their results from a folder or a bucket; goes on where it stopped.",
    },
}
"""Module of this folder -> its commands, functions of the same name, with the line that `--help` has for them."""
MODULES = {command: module for module, commands in COMMANDS.items() for command in commands}


ONLINE = ("fetch",)
"""Commands that may ask the network, and show a bar; all others keep offline."""
UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Of the click that typer brings, whose name is private."""


def _refuse(error: Any, words: Sequence[str]) -> NoReturn:
    """End with a usage error in one line. words: the command line as typed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        raise error
    names, ctx = list[str](), error.ctx
    while ctx is not None and ctx.parent is not None:
        names, ctx = [ctx.info_name, *names], ctx.parent
    path = " ".join(["dreampolish", *names])
    message = " ".join(error.format_message().split()).rstrip(".")
    if path == "dreampolish run" and "unexpected extra argument" in message:
        prompt = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), words[1:]))
        typer.echo(f'the prompt is one argument; quote the prompt: dreampolish run "{prompt}"', err=True)
    else:
        typer.echo(f"{message}; {path} --help lists what there is", err=True)
    raise typer.Exit(2)


class LazyGroup(TyperGroup):
    """Lists its commands out of COMMANDS alone; the module of a command is imported when the command is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before a command; a mistake is one line."""
        ctx.meta.setdefault("words", list(args))
        try:
            return list(super().parse_args(ctx, args))
        except UsageError as error:
            _refuse(error, ctx.meta["words"])

    def invoke(self, ctx: Any) -> Any:
        """Read a command's arguments and run it; a mistake in them is one line."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _refuse(error, ctx.meta["words"])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Put the real command in the place of the listed one."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _loaded(name) if name in MODULES else command, rest


def _loaded(name: str) -> Any:
    """A command with its options, out of its module."""
    from flows.cli.command import imported  # not above: the contracts behind it would slow `--help` down

    if name in ONLINE:
        for setting in ("HF_HUB_OFFLINE", "TQDM_DISABLE"):
            os.environ.setdefault(setting, "0")
    alone = _typer()
    alone.command(name)(getattr(imported(f"flows.cli.{MODULES[name]}"), name))
    return get_command(alone)


def _typer(**options: Any) -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def _listed() -> None:
    """Stands for a command in the group's list."""


app = _typer(cls=LazyGroup, no_args_is_help=True, help='Make textured 3D assets. Start: dreampolish run "a red armchair".')
_priors = _typer(
    cls=LazyGroup,
    no_args_is_help=True,
    help="The priors: check, fetch and convert models; train embedded ones.",
)
_store = _typer(
    cls=LazyGroup,
    no_args_is_help=True,
    help="The store: what it holds, making room, and runs to and from elsewhere.",
)
GROUPS = {"priors": _priors, "store": _store}
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)
for _module, _commands in COMMANDS.items():
    for _command, _line in _commands.items():
        GROUPS.get(_module, app).command(_command, help=_line)(_listed)


def main() -> None:
    """The entry point."""
    app()
