"""The commands `store ls`, `du`, `gc`, `verify`, `push` and `pull`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import Json, end, finish
from flows.runs.console import answer, say
from flows.store.collect import Plan, collect, plan_collection
from flows.store.exchange import Moved
from flows.store.exchange import pull as pull_runs
from flows.store.exchange import push as push_runs
from flows.store.usage import Run, all_runs, bytes_of, in_words, usage_of
from flows.store.usage import as_json as usage_json
from flows.store.verify import check_results
from schemas.config.presets import ConfigError
from schemas.runs import ALL_STAGES
from schemas.stores import StoreSettings, read_settings
from stages.runtime.records import newest_records, read_record
from stages.runtime.shared.remote import remote_at

Place = Annotated[str, typer.Argument(metavar="PLACE", help="a folder, or s3://bucket/folder; its endpoint: AWS_ENDPOINT_URL")]
Runs = Annotated[list[str] | None, typer.Argument(metavar="[RUN ...]", help="runs' ids, or their beginnings")]
MOST_SHOWN = 10


def ls(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="a run's id, or its beginning; none: all runs")] = None,
    limit: Annotated[int, typer.Option(min=1, help="at most so many runs")] = 50,
    json_: Json = False,
) -> None:
    """List the runs of the store, the one touched last first; or what one of them names."""

    def work(store: Path) -> dict[str, Any]:
        if run is not None:
            return _contents(store, run, as_json=json_)
        runs = all_runs(store)
        rows = [_row(each) for each in runs]
        if not json_:
            for row in rows[:limit]:
                answer(f"{row['run']}  {row['touched']}  {row['stages']:>2} stages  {row['state']:<10} {row['prompt'][:60]}")
            if len(rows) > limit:
                say(f"and {len(rows) - limit:,} more; --limit {len(rows)} shows all")
        return {"runs": rows}

    finish(work, json_)


def _row(run: Run) -> dict[str, Any]:
    record = run.record
    state = "whole" if "export" in record.stages else f"to {list(record.stages)[-1]}" if record.stages else "new"
    return {
        "run": record.run,
        "touched": datetime.fromtimestamp(run.modified, UTC).strftime("%Y-%m-%d %H:%M"),
        "stages": len(record.stages),
        "state": state,
        "study": run.study,
        "prompt": record.prompt,
    }


def _contents(store: Path, run: str, *, as_json: bool) -> dict[str, Any]:
    record = read_record(store, run)
    entries = record.stages.values()
    named = [(each.name, each.fingerprint) for each in entries] + [("scores", each.scores) for each in entries if each.scores]
    rows = [{"stage": stage, "key": key, "bytes": bytes_of(store / stage / str(key))} for stage, key in named]
    if not as_json:
        for row in rows:
            answer(f"{row['stage']:<10} {str(row['key'])[:12]}  {in_words(int(str(row['bytes'])))}")
    return {"run": record.run, "results": rows}


def du(as_json: Json = False) -> None:
    """Say what takes the room of the store: by stage, by run, by study."""

    def work(store: Path) -> dict[str, Any]:
        usage = usage_of(store)
        if not as_json:
            for name in (*ALL_STAGES, "scores"):
                if name in usage.counts:
                    answer(f"{name:<12} {in_words(usage.by_stage[name]):>10}  {usage.counts[name]:,} results")
            for name, size in sorted(usage.rest.items(), key=lambda each: -each[1]):
                answer(f"{name:<12} {in_words(size):>10}")
            answer(f"{'all':<12} {in_words(usage.total):>10}")
            answer(f"{'unnamed':<12} {in_words(usage.unnamed):>10}  of results that no run names; dreampolish store gc")
            for name, size in sorted(usage.by_study.items(), key=lambda each: -each[1])[:MOST_SHOWN]:
                answer(f"study {name}: {in_words(size)}")
            for name, size in sorted(usage.named.items(), key=lambda each: -each[1])[:MOST_SHOWN]:
                answer(f"run {name}: {in_words(size)}, {in_words(usage.alone[name])} of it named by no other run")
        return usage_json(usage)

    finish(work, as_json)


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this, say what would go")] = False,
    max_gib: Annotated[float | None, typer.Option(help="in place of max_gib in the store's settings.yaml")] = None,
    runs_days: Annotated[float | None, typer.Option(help="in place of runs_days there")] = None,
    grace_hours: Annotated[float | None, typer.Option(help="in place of grace_hours there")] = None,
    as_json: Json = False,
) -> None:
    """Make room: results that no run names, and what the store's settings say. Without --yes nothing is removed."""

    def work(store: Path) -> dict[str, Any]:
        given = {"max_gib": max_gib, "runs_days": runs_days, "grace_hours": grace_hours}
        plan = plan_collection(
            store, _changed(read_settings(store), {key: each for key, each in given.items() if each is not None})
        )
        _tell_plan(plan, yes=yes)
        result: dict[str, Any] = {"kinds": plan.counts(), "bytes": plan.bytes, "left": plan.left, "removed": False}
        if yes:
            done = collect(store, plan)
            kept = f", {done.kept:,} stay: somebody is at work on them, or a run names them again" if done.kept else ""
            answer(f"{in_words(done.bytes)} freed{kept}")
            result.update(removed=True, bytes=done.bytes, items=done.items, kept=done.kept)
        return result

    finish(work, as_json)


def _changed(settings: StoreSettings, given: dict[str, float]) -> StoreSettings:
    try:
        return StoreSettings.model_validate({**settings.model_dump(), **given})
    except ValueError:
        raise ConfigError(f"{next(iter(given))} is a number above 0, as in --max-gib 50") from None


def _tell_plan(plan: Plan, *, yes: bool) -> None:
    for kind, (number, size) in plan.counts().items():
        answer(f"{number:,} {kind}{'s' if number > 1 and not kind.endswith('s') else ''}: {in_words(size)}")
    if not yes:
        answer(f"{in_words(plan.bytes)} would go, {in_words(plan.left)} would stay; dreampolish store gc --yes removes it")


def verify(as_json: Json = False) -> None:
    """Compare every file of every result with its hash."""
    wrong: list[str] = []

    def work(store: Path) -> dict[str, Any]:
        checked = check_results(store, deep=True)
        wrong.extend(each.what for each in checked.problems)
        for line in wrong:
            answer(line)
        answer(
            f"{checked.hashed:,} of {checked.results:,} results are whole"
            if wrong
            else f"{checked.results:,} results, all whole"
        )
        return {"results": checked.results, "problems": wrong}

    finish(work, as_json)
    if wrong:
        raise typer.Exit(1)


def push(
    place: Place,
    runs: Runs = None,
    everything: Annotated[bool, typer.Option("--all", help="every run of the store")] = False,
    as_json: Json = False,
) -> None:
    """Send runs with their results to a folder or a bucket (s3://...); goes on where it stopped."""
    failed: list[str] = []

    def work(store: Path) -> dict[str, Any]:
        if bool(runs) == everything:
            raise ConfigError("name the runs to send, or give --all; dreampolish store ls lists them")
        chosen = (
            [path.stem for path in newest_records(store)] if everything else [read_record(store, run).run for run in runs or []]
        )
        return _told(push_runs(store, remote_at(place), chosen, say), failed, "sent")

    finish(work, as_json, again="the same command")
    if failed:
        end(failed[0], 1)


def pull(place: Place, runs: Runs = None, as_json: Json = False) -> None:
    """Bring runs with their results from a folder or a bucket; goes on where it stopped."""
    failed: list[str] = []

    def work(store: Path) -> dict[str, Any]:
        return _told(pull_runs(store, remote_at(place), runs or [], say), failed, "fetched")

    finish(work, as_json, again="the same command")
    if failed:
        end(failed[0], 1)


def _told(moved: Moved, failed: list[str], verb: str) -> dict[str, Any]:
    answer(f"{moved.runs:,} runs {verb}: {moved.results:,} results, {moved.there:,} were there already")
    failed.extend(f"{len(moved.failed)} runs failed, first {run}: {why}" for run, why in list(moved.failed.items())[:1])
    return {"runs": moved.runs, "results": moved.results, "there": moved.there, "failed": moved.failed}
