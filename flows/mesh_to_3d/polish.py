"""The flow `polish`: a user's own mesh under the normal prior, and painted where a prompt says what it shows."""

from typing import Any

from prefect import flow

from flows.runs.create import new_run
from flows.runs.given_mesh import GivenMesh
from flows.runs.inputs import words_of_name
from flows.runs.parameters import MeshPath, Overrides, Pictures, Preset, Prompt, Vram, override_lines
from flows.runs.roots import given_mesh, given_pictures
from flows.service.marks import at_work
from flows.text_to_3d import make_asset, open_run
from schemas.config.presets import ConfigError
from stages.runtime.files import store_folder


@flow(name="dreampolish", flow_run_name="polish of {mesh}", persist_result=False, log_prints=False)
@at_work
def polish(
    mesh: MeshPath,
    prompt: Prompt | None = None,
    image: Pictures | None = None,
    preset: Preset = "home",
    overrides: Overrides = None,
    mend: bool = False,
    vram: Vram = None,
) -> dict[str, Any]:
    """Polish a mesh of your own; with a prompt, paint it too.

    mesh, image: the hash that `dreampolish upload` printed, or a file under a root (flows/runs/roots.py); image: or a list of them, all
    but the front's with @AZIMUTH[,ELEVATION] behind it. vram: GiB of a GPU to plan for; else what it has free.
    Raises ConfigError for a picture without a prompt.
    """
    store = store_folder()
    if image is not None and prompt is None:
        raise ConfigError("a picture says how the mesh is painted; give a prompt too, which says what it shows")
    file = given_mesh(store, mesh)
    pictures = given_pictures(store, image)
    made = new_run(
        store=store,
        prompt=words_of_name(file) if prompt is None else prompt,
        preset=preset,
        overrides=[*pictures.settings, *override_lines(overrides)],
        image=pictures.front,
        others=pictures.others,
        given=GivenMesh(file, use="polish", paint=prompt is not None, mend=mend),
        vram=vram,
    )
    with open_run(made, store, show_progress=False) as this:
        make_asset(this, made)
        return this.written()
