"""Small corrections of Infinigen 1.15.5 in memory.

Crabs, lobsters and reptiles call their colouring with arguments that it no longer gets; a bed's cloth falls for longer than it moves.
"""

import inspect

from infinigen.assets.composition import material_assignments
from infinigen.assets.materials.creature import eyeball
from infinigen.assets.objects.creatures import crustacean, reptile
from infinigen.assets.objects.creatures.util import joining
from infinigen.assets.scatters import clothes
from infinigen.core.util.random import weighted_sample

CLOTH_FRAMES = 20
"""Frames (of 1/24 s) that sheets and covers fall: they start on the mattress."""


def shorten_cloth():
    """Let cloth simulations end after CLOTH_FRAMES frames."""
    simulate = clothes.cloth_sim

    def shortened(cloth, obstacles=None, end_frame=CLOTH_FRAMES, **options):
        return simulate(cloth, obstacles, end_frame=min(end_frame, CLOTH_FRAMES), **options)

    clothes.cloth_sim = shortened


def mend_creatures():
    """Let crustaceans and reptiles be coloured."""
    join = joining.join_and_rig_parts

    def joined(root, parts, genome, postprocess_func, **options):
        """join_and_rig_parts, for colourings of (body, extras, params) as well as of (root)."""
        coloring = postprocess_func
        if len(inspect.signature(coloring).parameters) == 3:

            def coloring(root):
                body = joining.get_parts(root, True)
                extras = [part for part in joining.get_parts(root, False) if part not in body]
                postprocess_func(body, extras, genome.postprocess_params)

        return join(root, parts, genome, postprocess_func=coloring, **options)

    joining.join_and_rig_parts = joined
    crustacean.join_and_rig_parts = joined
    reptile.reptile_postprocessing = reptile.chameleon_postprocessing = color_reptile


def color_reptile(body, extras, params):
    """One reptile skin over everything but the eyes, which are dark."""
    weighted_sample(material_assignments.reptile)().apply([*body, *(part for part in extras if "Eyeball" not in part.name)])
    eyes = [part for part in extras if "Eyeball" in part.name]
    if eyes:
        eyeball.Eyeball().apply(eyes, shader_kwargs={"coord": "X"})
