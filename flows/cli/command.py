"""What every command shares: its options, and how its work ends: a result, or one line and an exit code."""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer

from flows.service.environment import quiet_environment
from flows.service.secret import is_refusal
from stages.runtime.errors import StageError
from stages.runtime.files import close_store, disk_error, is_disk_error, keep_private, store_folder
from stages.runtime.signals import interrupted_by_sigterm
from stages.runtime.tracking.messages import write_line

Run = Annotated[str, typer.Argument(metavar="RUN", help="a run's id, or its beginning")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change a setting; repeatable")]
Json = Annotated[bool, typer.Option("--json", help="the last line of output is one JSON object")]


def imported(name: str) -> ModuleType:
    """A command's module, imported in a quiet environment: torch, Prefect and transformers read it as they are imported."""
    store = store_folder()
    keep_private()
    quiet_environment(store)
    with _errors_in_one_line(store, "the same command"):
        close_store(store)
        return import_module(name)


def finish(work: Callable[[Path], dict[str, Any]], as_json: bool, again: str | None = None) -> None:
    """Do a command's work, print its result, and turn errors into one line and an exit code.

    again: what goes on after a stop; None: the command that resumes the stopped run, which the stop's note names.
    """
    store = store_folder()
    with _errors_in_one_line(store, again):
        result = work(store)
    if as_json:
        write_line(json.dumps(result), "out")
    elif result.get("output"):
        write_line(str(result["output"]), "out")


@contextmanager
def _errors_in_one_line(store: Path, again: str | None) -> Iterator[None]:
    try:
        with interrupted_by_sigterm():
            yield
    except StageError as error:
        end(str(error), 2)
    except KeyboardInterrupt as error:
        end(_how_to_go_on(error, again), 130)
    except Exception as error:
        if type(error).__name__ == "ConfigError":  # by its name: the settings behind it would slow `--help` down
            end(str(error), 2)
        if any(type(each).__name__ in ("FitInterruptedError", "StoppedError") for each in _behind(error)):
            end(_how_to_go_on(error, again), 130)
        end(*_told(error, store))
    except BaseException as error:
        # A SIGTERM in Prefect's own lines, before or after the stages.
        if type(error).__name__ != "TerminationSignal":
            raise
        end(_how_to_go_on(error, again), 130)


def _told(error: Exception, store: Path) -> tuple[str, int]:
    """One line and an exit code for an error that is not a user's mistake."""
    if is_refusal(error):
        return "the Prefect server does not take the secret that this command knows; dreampolish doctor says why", 2
    if is_disk_error(error):
        return str(disk_error(error, store)), 2
    try:
        store.mkdir(parents=True, exist_ok=True)
        log = store / "last-error.log"
        log.write_text("".join(traceback.format_exception(error)))
        where = f"; details in {log}"
    except OSError:
        where = ""
    return f"internal error, {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{where}", 1


def _how_to_go_on(error: BaseException, again: str | None) -> str:
    """The stop's words and the command that goes on: `again`, else the stopped run's, else, before there was a run, the same command."""
    noted = [each for each in _behind(error) if hasattr(each, "__notes__")]
    commands = [again] if again is not None else [note for each in noted for note in each.__notes__][:1]
    return "; go on with: ".join([str((noted or [error])[0]) or "stopped", *(commands or ["the same command"])])


@contextmanager
def resumed_by(command: str) -> Iterator[None]:
    """Let a stop inside the block name the command that goes on, where nothing inside has."""
    try:
        yield
    except BaseException as error:
        if not any(hasattr(each, "__notes__") for each in _behind(error)):
            error.add_note(command)
        raise


def _behind(error: BaseException) -> list[BaseException]:
    """An error and those in whose handling it arose: a stop, where it could not be reported."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or each.__context__
    return chain


def end(line: str, code: int) -> NoReturn:
    """Say one line to the user and exit with the code."""
    write_line(line, "error")
    sys.exit(code)
