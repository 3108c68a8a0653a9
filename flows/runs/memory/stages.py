"""What each stage keeps all the time, and what comes on top at each moment of a step, for a way of computing."""

from dataclasses import dataclass, field

from dreampolish.priors.folders.contents import Role
from flows.runs.memory.priors import CountedPriors
from flows.runs.memory.renders import CELL, Graph, Pictures, grid_bytes, mesh_bytes, volume_bytes
from schemas.artifacts import StageName
from schemas.config.run import Config
from schemas.config.shared.geometry import GeometryConfig, VolumeConfig
from schemas.plans import Execution

PLANNED: tuple[StageName, ...] = ("reference", "nerf", "neus", "dmtet", "polish", "texture")
"""Stages with a plan; the others open no prior."""
TEXTS, RIVALS = 3, 2
"""Texts under which the network sees a picture in one call at most, and how many Perp-Neg adds."""

NAMES = {"views": "set", "normals": "normal"}
"""What priors are called in a plan, where not by their role."""


@dataclass(frozen=True)
class Need:
    """Bytes of a stage. kept: there all the time. moments: on top of it, one after the other. on_cpu: of networks outside of the card."""

    kept: dict[str, int]
    moments: dict[str, int]
    on_cpu: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """At the peak."""
        return sum(self.kept.values()) + max(self.moments.values(), default=0)


def need_of(stage: StageName, config: Config, priors: CountedPriors, execution: Execution) -> Need:
    """A stage's bytes under a way of computing. ValueError for a stage without a plan."""
    counted = _Counted(stage, config, priors, execution)
    match stage:
        case "reference":
            return counted.reference()
        case "nerf" | "neus":
            return counted.volume()
        case "dmtet":
            return counted.tetrahedra()
        case "polish":
            return counted.polish()
        case "texture":
            return counted.texture()
    raise ValueError(f"the stage {stage} has no plan")


def views_of(stage: StageName, config: Config) -> int:
    """The most pictures that a stage guides or draws in one step."""
    section = getattr(config, stage)
    if isinstance(section, VolumeConfig) and section.finer.begin < 1:
        return max(section.guidance_views, section.finer.views)
    if isinstance(section, GeometryConfig):
        return section.guidance_views
    return int(section.n_candidates if stage == "reference" else section.views)


@dataclass(frozen=True)
class _Counted:
    """The terms of a stage's sum."""

    stage: StageName
    config: Config
    priors: CountedPriors
    execution: Execution

    def reference(self) -> Need:
        """Text and normal prior open one after the other."""
        config, n = self.config.reference, self.config.reference.n_candidates
        drawing, looking = sum(self._weights("text").values()), sum(self._weights("normals").values())
        moments = {
            "words": drawing + self._towers("text"),
            "drawing": drawing + self._drawn("text", n),
            "normals": looking + self._drawn("normals", self.config.priors.normals.ensemble),
            **self.priors.beside,
        }
        kept, on_cpu = {"pictures": n * config.size**2 * 3 * 4}, self._normals_on_cpu()
        return Need(kept, moments, on_cpu | ({"matting": self.priors.matting} if self.priors.matting else {}))

    def volume(self) -> Need:
        """A field under both priors."""
        config = self.config.nerf if self.stage == "nerf" else self.config.neus
        shown = [(Pictures(config.guidance_views, config.guidance_size), Pictures(1, config.reference_size))]
        if config.finer.begin < 1:
            shown.append((Pictures(config.finer.views, config.finer.size), Pictures(1, config.finer.size)))
        together = [[*each] if not config.alternate else [max(each, key=lambda some: some.pixels)] for each in shown]
        graphs = [volume_bytes(each, config.grid, config.samples_per_ray, self.execution.points_at_once) for each in together]
        return self._guided(config, {"field": grid_bytes(config.grid)}, max(graphs, key=lambda graph: graph.peak))

    def tetrahedra(self) -> Need:
        """A mesh over a grid under both priors."""
        config = self.config.dmtet
        fronts, novel = Pictures(1, config.reference_size), Pictures(config.guidance_views, config.guidance_size)
        graph = mesh_bytes([fronts, fronts, novel], self.execution.rendered_at_once)
        kept = {"grid": config.tet_resolution**3 * CELL, "colours": grid_bytes(config.grid)}
        return self._guided(config, kept, graph)

    def polish(self) -> Need:
        """A mesh under the normal prior."""
        config = self.config.polish
        graph = mesh_bytes([Pictures(1, config.size), Pictures(config.views, config.size)], self.execution.rendered_at_once)
        n = config.views * self.config.priors.normals.ensemble
        return Need(
            {**self._weights("normals"), "colours": grid_bytes(self.config.dmtet.grid)},
            {"rendering": graph.peak, "normals": graph.kept + self._drawn("normals", n)},
            self._normals_on_cpu(),
        )

    def texture(self) -> Need:
        """Colours under the text prior, with a LoRA on its network."""
        config, adapter = self.config.texture, self.priors.adapter
        views = min(self.execution.views_at_once or config.views, config.views)
        graph = mesh_bytes([Pictures(1, config.size), Pictures(config.views, config.size)], self.execution.rendered_at_once)
        kept = {
            **self._weights("text"),
            "LoRA": adapter.once + self.priors.adapter_copy,
            "colours": 2 * grid_bytes(self.config.dmtet.grid),
        }
        learning = views * (adapter.picture_again if self.execution.checkpoint_adapter else adapter.picture)
        moments = {
            "words": self._towers("text"),
            "rendering": graph.peak,
            "text prior": graph.kept + self._distilled("text", config.views, TEXTS),
            "LoRA's update": graph.kept + learning,
        }
        if config.targets.wanted:
            kept |= self._weights(self._painter)
            moments["painting"] = graph.kept + self._drawn(self._painter, config.targets.n_views)
        return Need(kept, moments)

    def _guided(self, config: GeometryConfig, kept: dict[str, int], graph: Graph) -> Need:
        views = views_of(self.stage, self.config)
        kept, moments = dict(kept), {"rendering": graph.peak}
        if config.uses_text:
            texts = TEXTS + (RIVALS if config.text.perp_neg_weight > 0 else 0)
            kept |= self._weights("text")
            moments |= {
                "words": self._towers("text"),
                "text prior": graph.kept + self._distilled("text", views, texts),
            }
        if config.uses_view_alone or (config.targets.wanted and self._painter == "view"):
            kept |= self._weights("view")
            moments["reference"] = self._towers("view")
        if config.uses_view_alone:
            moments["view prior"] = graph.kept + self._distilled("view", views, 1)
        if config.targets.wanted:
            kept |= self._weights(self._painter)
            moments["painting"] = self._drawn(self._painter, config.targets.n_views)
        return Need(kept, moments)

    @property
    def _painter(self) -> Role:
        """Who paints target views."""
        return "view" if self.config.priors.views is None else "views"

    def _normals_on_cpu(self) -> dict[str, int]:
        found = self.priors.by_role["normals"].on_cpu
        return {"normal prior": found} if found else {}

    def _weights(self, role: Role) -> dict[str, int]:
        prior = self.priors.by_role[role]
        towers = 0 if self.execution.towers_on_cpu or role == "normals" else prior.towers
        return {f"{NAMES.get(role, role)} prior's weights": sum(prior.weights.values()) + towers}

    def _towers(self, role: Role) -> int:
        """While it reads."""
        return self.priors.by_role[role].towers if self.execution.towers_on_cpu else 0

    def _distilled(self, role: Role, n: int, texts: int) -> int:
        """Encoder with a graph, and the networks' answers beside it."""
        networks = self.priors.by_role[role].networks
        views = min(self.execution.views_at_once or n, n)
        encoder = networks.encode_again if self.execution.checkpoint_encoder else networks.encode
        return views * encoder + min(self.execution.rows_at_once or views * texts, views * texts) * networks.row

    def _drawn(self, role: Role, n: int) -> int:
        """Whole pictures by sampling."""
        networks = self.priors.by_role[role].networks
        rows = -(-min(self.execution.rows_at_once or n, n) // networks.together)
        return (networks.rows or rows) * max(networks.row, networks.decode)
