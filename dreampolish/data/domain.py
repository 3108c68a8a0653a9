"""Which models of the libraries are taught: single, well-modelled things that stand or lie free.

The rule: doors, windows and stairs go by category; wall pieces, sockets, ducts, floor marks, cloths and the like go by a word
in the name; what is almost flat or almost a line goes by its extents.
"""

import re

from dreampolish.data.library import CatalogEntry

DROPPED_CATEGORIES = frozenset({"Doors and windows", "Staircases"})
"""Categories of which no object is used. [choice]"""

_DROPPED_WORDS_TEXT = """
air antenna arrow barnum basin bathmat bill blind board boiler building calendar carpet ceiling chimney column
comb concrete cooktop crossing curtain cutlery dimmer dispenser door doormat emergency entry escalator extension
faucet fence flat fluorescent frame furnace hanger hanging hashtray heater hedge holder hood induction intercom
keys living logs lying mat newspaper opened panel parking pedestrian plug pool porch puzzle radiator railing
rails rug sandpit shower sidewalk smoke socket spotlight stall switch tape tatami thermometer tool towel track
upper urinal wall window wire
"""
DROPPED_WORDS = frozenset(_DROPPED_WORDS_TEXT.split())
"""A name with one of these words is dropped, unless KEPT_NAMES holds it."""

KEPT_NAMES = frozenset({"air mattress", "pool table", "pool lounge", "ceiling fan", "ceiling lamp", "concrete bench"})
"""Names that are kept in spite of a dropped word. [choice]"""

MIN_THICKNESS = 0.02
"""Least ratio of the smallest to the largest extent of an object's box. [choice]"""

MIN_WIDTH = 0.12
"""Least ratio of the middle to the largest extent of an object's box. [choice]"""


def in_domain(entry: CatalogEntry) -> bool:
    """Whether a model belongs to the taught domain, by the module's rule."""
    name = entry.name.lower()
    smallest, middle, largest = sorted(entry.size_m)
    if entry.category in DROPPED_CATEGORIES or smallest < MIN_THICKNESS * largest or middle < MIN_WIDTH * largest:
        return False
    return name in KEPT_NAMES or not DROPPED_WORDS & set(re.findall(r"[a-z]+", name))
