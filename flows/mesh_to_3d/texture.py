"""The flow `texture`: texture and export of an earlier run's geometry, as a new run beside it, or of a user's own mesh."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.runs.console import say
from flows.runs.create import derived_run, new_run
from flows.runs.given_mesh import GivenMesh
from flows.runs.memory.told import say_plan
from flows.runs.parameters import MeshPath, Overrides, Pictures, Preset, Prompt, RunId, Vram, override_lines
from flows.runs.roots import deployed, given_mesh, given_pictures
from flows.service.marks import at_work
from flows.text_to_3d import make_asset, open_run
from schemas.artifacts import PolishedMeshArtifact, ReferenceArtifact, StageName
from schemas.config.presets import ConfigError
from schemas.runs import STAGES
from stages.export import export_asset
from stages.runtime.command import open_recorded
from stages.runtime.files import store_folder
from stages.runtime.records import read_record
from stages.texture import paint_texture

TEXTURE_STAGES: tuple[StageName, ...] = ("texture", "export")
GEOMETRY_STAGES = tuple(name for name in STAGES if name not in TEXTURE_STAGES)


@flow(name="dreampolish", flow_run_name="texture of {run}{mesh}", persist_result=False, log_prints=False)
@at_work
def texture(
    run: RunId | None = None,
    mesh: MeshPath | None = None,
    prompt: Prompt | None = None,
    image: Pictures | None = None,
    preset: Preset = "home",
    overrides: Overrides = None,
    refresh: bool = False,
    vram: Vram = None,
) -> dict[str, Any]:
    """Texture a run's mesh anew, or a mesh of your own: `run`, or `mesh` and `prompt`.

    mesh, image: the hash that `dreampolish upload` printed, or a file under a root (flows/runs/roots.py); image: or a list of them, all
    but the front's with @AZIMUTH[,ELEVATION] behind it. What has changed upstream of a run is named as stale; `refresh` computes those
    stages too. vram: GiB of a GPU to plan for; else what it has free. Raises ConfigError where neither or both are given.
    """
    store = store_folder()
    if (run is None) == (mesh is None):
        raise ConfigError("give a run, or a mesh and a prompt: one of the two")
    if mesh is not None:
        if prompt is None:
            raise ConfigError("a mesh needs a prompt: say what it shows, as in: a golden statue of a fox")
        pictures = given_pictures(store, image)
        made = new_run(
            store=store,
            prompt=prompt,
            preset=preset,
            overrides=[*pictures.settings, *override_lines(overrides)],
            image=pictures.front,
            others=pictures.others,
            given=GivenMesh(given_mesh(store, mesh)),
            vram=vram,
        )
        with open_run(made, store, show_progress=not deployed()) as this:
            make_asset(this, made)
            return this.written()
    assert run is not None
    return _textured_again(store, run, override_lines(overrides), refresh=refresh, vram=vram)


def _textured_again(store: Path, run: str, overrides: list[str], *, refresh: bool, vram: float | None) -> dict[str, Any]:
    """Texture and export of an earlier run, as a new run beside it."""
    chain = read_record(store, run).chain
    geometry = tuple(name for name in chain if name not in TEXTURE_STAGES)
    record, stale = derived_run(store, run, overrides, geometry, reuse_stale=not refresh, vram=vram)
    if stale and not refresh:
        say(f"stale: {', '.join(stale)} (settings or code changed, the earlier result is used; --refresh computes it)")
    say_plan(record.plan)
    with open_run(record, store, show_progress=not deployed()) as this:
        if record.mesh is not None or record.computes is None:
            make_asset(this, record)
        else:
            reference = open_recorded(ReferenceArtifact, record, store)
            polished = open_recorded(PolishedMeshArtifact, record, store)
            textured = paint_texture(this.context, reference, polished, this.config.texture)
            export_asset(this.context, reference, textured, this.config.export)
        return this.written()
