"""One leg of training the joint view prior: `python -m flows.training.leg --minutes 8 --device cuda --pack FILE --codec FILE --out DIR`.

Writes DIR/weights.part*, result.json (config, figures, journal), views.png, text.png, halfway and at the end; `--check` runs all of it in
some forty seconds. Needs torch, numpy, scipy, pillow, safetensors and jaxtyping; no network.
"""

import argparse
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dreampolish.priors.multiview.network import CLASS_NAME, MultiviewNetwork, MultiviewShape, SetCondition, build_network
from dreampolish.priors.multiview.prior import MultiviewPrior
from dreampolish.training.multiview import raster
from dreampolish.training.multiview.codec import PatchCodec, load_codec
from dreampolish.training.multiview.objects import GENERATORS, Meshes, Tables, dense_meshes, drawing_weights, tables
from dreampolish.training.multiview.pack import TrainingPack, joined_parts, read_pack, write_parts
from dreampolish.training.multiview.raster import Scene
from dreampolish.training.multiview.sets import Renderer, SetPool
from dreampolish.training.multiview.train import MultiviewTraining, Pace, Trainer, train
from dreampolish.training.multiview.trial import (
    PIXELS,
    Trial,
    class_means,
    sets_from_text,
    sheet,
    true_sets,
    uneven_height,
    view_figures,
)

log = logging.getLogger("leg")
STARTED = time.monotonic()
PROCEDURAL_SHARE = 0.42
N_PROMPTS = 24


def elapsed() -> float:
    """Seconds since the start."""
    return time.monotonic() - STARTED


def chosen_renderer(meshes: Meshes, device: torch.device) -> Renderer:
    """The Triton renderer where it works and agrees with the plain one, else the plain one."""
    if device.type != "cuda":
        return raster.rendered
    try:
        from dreampolish.training.multiview import raster_triton

        points = meshes.points(torch.arange(2, device=device)).contiguous()
        poses = torch.tensor([[0.0, 90.0], [45.0, 200.0]], device=device)
        wood = torch.tensor([[0.6, 0.8, 0.0, 0.1]] * 2, device=device)
        normals = raster.vertex_normals(points, meshes.faces[:2])
        scene = Scene(
            vertices=points,
            normals=normals,
            faces=meshes.faces[:2].contiguous(),
            colors=meshes.colors[:2].contiguous(),
            wood=wood,
            azimuth_deg=poses,
            elevation_deg=poses / 8,
        )
        fast, plain = raster_triton.rendered(scene, 128, 2), raster.rendered(scene, 128, 2)
        wrong = float(((fast.int() - plain.int()).abs() > 3).float().mean())
        log.info("Triton renderer: %.4f %% of values differ from the plain one's", 100 * wrong)
        if wrong < 0.01:
            return raster_triton.rendered
    except Exception as problem:  # any failure of a compiler we do not control
        log.warning("Triton renderer failed, the plain one is used: %r", problem)
    return raster.rendered


def flop_per_set(shape: MultiviewShape) -> float:
    """Floating-point operations of one forward pass of one set, counted."""
    with torch.device("meta"):
        network = MultiviewNetwork(shape)
        views = torch.zeros(1, 6)
        told = SetCondition(
            clean=views,
            absent=views,
            azimuth_deg=views,
            elevation_deg=views,
            text=torch.zeros(1, 16, shape.text_width),
            mask=torch.ones(1, 16, dtype=torch.bool),
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros((1, 6, shape.latent_channels, shape.latent_size, shape.latent_size)), views, told)
    return float(counter.get_total_flops())


def synchronized(device: torch.device) -> float:
    """The time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


class Leg:
    """Everything of one leg."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.shape = MultiviewShape() if not options.tiny else MultiviewShape(widths=(16, 32, 32), embedding=32, head=16)
        self.settings = MultiviewTraining(batch=options.batch, seed=options.seed, learning_rate=options.learning_rate)
        self.pack: TrainingPack = read_pack(options.pack)
        log.info("%.0f s: pack of %d objects read", elapsed(), len(self.pack.meshes))
        objects = self.pack.info.objects
        self.chosen = list(range(len(objects)))
        self.train_rows = [i for i in self.chosen if objects[i].split == "train"]
        self.meshes = dense_meshes(self.pack, self.chosen, self.device)
        self.tables: Tables = tables(self.pack, self.chosen, self.device)
        self.codec: PatchCodec = load_codec(options.codec).to(self.device)
        self.renderer = chosen_renderer(self.meshes, self.device)
        self.generator = torch.Generator(self.device).manual_seed(options.seed)
        weights = torch.zeros(len(objects))
        weights[self.train_rows] = drawing_weights(self.pack.info, self.train_rows, frozenset(GENERATORS), PROCEDURAL_SHARE)
        self.pool = SetPool(
            meshes=self.meshes,
            tables=self.tables,
            weights=weights,
            renderer=self.renderer,
            size=options.pool,
            pixels=PIXELS,
            generator=self.generator,
        )
        network = build_network(self.shape, options.seed).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trainer = Trainer(
            network=network,
            codec=self.codec,
            tables=self.tables,
            pool=self.pool,
            settings=self.settings,
            generator=self.generator,
        )
        self.flop = flop_per_set(self.shape)
        self.journal: list[dict[str, float]] = []
        self.facts: dict[str, Any] = {}

    def start(self) -> None:
        """Go on from earlier weights, if told so."""
        if self.options.state and self.options.state.exists():
            self.trainer.load(self.options.state)
        elif self.options.start:
            from safetensors.torch import load

            weights = load(joined_parts(self.options.start)[0])
            with torch.no_grad():
                for (name, live), average in zip(
                    self.trainer.network.named_parameters(), self.trainer.average.averages, strict=True
                ):
                    live.copy_(weights[name].float())
                    average.copy_(weights[name].float())

    def warm_up(self) -> Pace:
        """Fill the pool, compile, and find the pace."""
        chunk = min(64, self.pool.size)
        for _ in range(2):  # the first one compiles
            begun = synchronized(self.device)
            self.pool.renew(chunk)
            per_chunk = synchronized(self.device) - begun
        affordable = max(1, int(self.options.fill_s / per_chunk))
        self.pool.shrink(chunk * min(self.pool.size // chunk, affordable))
        self.trainer.fill_pool(chunk)
        synchronized(self.device)
        log.info("%.0f s: pool of %d sets, %.0f views/s", elapsed(), self.pool.size, 6 * chunk / per_chunk)
        self._compile()
        begun = synchronized(self.device)
        for _ in range(4):
            self.trainer.train_step(self.settings.batch, 0.0)
        step = (synchronized(self.device) - begun) / 4
        every = max(1, round(per_chunk / (self.settings.renew_share * step)))
        rate = 3 * self.flop * self.settings.batch / step / 1e12
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0
        self.facts |= {"views_per_s": 6 * chunk / per_chunk, "step_s": step, "tflops": rate, "memory_gib": memory}
        log.info(
            f"{elapsed():.0f} s: a step takes {1000 * step:.1f} ms, {rate:.0f} TFLOP/s, {memory:.0f} GiB; "
            f"{chunk} sets are rendered every {every} steps; {self.flop / 1e9:.2f} GFLOP a set"
        )
        return Pace(
            batch=self.settings.batch, chunk=chunk, renew_every=every, progress=lambda step: 1.0, every_s=self.options.log_s
        )

    def _compile(self) -> None:
        """The first step, compiled where that works; smaller batches where memory ends."""
        compiled = self.device.type == "cuda" and not self.options.eager
        if compiled:
            self._load_cache()
            self.trainer.forward = torch.compile(self.trainer.network, dynamic=False)
            self.pool.paint = torch.compile(self.pool.paint, dynamic=False)
        while True:
            try:
                self.trainer.train_step(self.settings.batch, 0.0)
                synchronized(self.device)
                log.info("%.0f s: first step done, compiled: %s", elapsed(), compiled)
                return
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                self.settings = replace(self.settings, batch=self.settings.batch // 2)
                log.warning("out of memory: batches of %d", self.settings.batch)
            except Exception as problem:  # any failure of a compiler we do not control
                if not compiled:
                    raise
                log.warning("compiling failed, going on without: %r", problem)
                torch._dynamo.reset()
                compiled = False
                from dreampolish.training.multiview.sets import painted_pictures

                self.trainer.forward, self.pool.paint = self.trainer.network, painted_pictures

    def _load_cache(self) -> None:
        """Compiled kernels of an earlier call on such a machine, where they travel along."""
        path: Path = self.options.cache
        if path is not None and path.exists():
            try:
                torch.compiler.load_cache_artifacts(path.read_bytes())
                log.info("%.0f s: compiled kernels loaded", elapsed())
            except Exception as problem:  # a cache is never needed
                log.warning("compiled kernels could not be loaded: %r", problem)

    def save_cache(self) -> None:
        """Leave the compiled kernels for a later call."""
        try:
            found = torch.compiler.save_cache_artifacts()
            if found is not None and len(found[0]) < 15.5 * 2**20:
                (self.out / "compile_cache.bin").write_bytes(found[0])
        except Exception as problem:  # a cache is never needed
            log.warning("compiled kernels could not be saved: %r", problem)

    def write(self) -> None:
        """Averaged weights and facts; the whole state too, where asked."""
        config = {"_class_name": CLASS_NAME, **asdict(self.shape)}
        facts = {"config": config, "step": self.trainer.step, "settings": asdict(self.settings), "journal": self.journal}
        write_parts(self.trainer.averaged_state(), facts | self.facts, self.out)
        if self.options.state:
            self.trainer.save(self.options.state)
        log.info("%.0f s: weights written at step %d", elapsed(), self.trainer.step)

    def run(self) -> None:
        """The leg."""
        self.start()
        pace = self.warm_up()
        begun = elapsed()
        end = max(60 * self.options.minutes - self.options.reserve_s, begun + (12 if self.options.check else 0))
        if self.options.check:
            self.save_cache()
        pace.progress = lambda step: min(1.0, (elapsed() - begun) / max(end - begun, 1e-3))
        if self.options.steps:
            pace.progress = lambda step: step / self.options.steps
        pace.at_half = self.write
        self.journal = train(self.trainer, pace, self.flop)
        self.write()
        self.evaluate()
        self.write()
        if self.options.check:  # the way back is narrow, and these weights are worth nothing
            for part in self.out.glob("weights.part*"):
                part.unlink()

    def evaluate(self) -> None:
        """Figures and sheets with the averaged weights, in order of importance; a failure of one leaves the others."""
        torch.backends.cudnn.benchmark = False
        network = build_network(self.shape, self.options.seed).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.load_state_dict(self.trainer.averaged_state())
        prior = MultiviewPrior(self.codec, network.eval().requires_grad_(False))
        self.pool.buffers = self.pool.buffers[:1].clone()
        self.facts["figures"] = {}
        for task in (self._evaluate_views, self._evaluate_text):
            try:
                task(prior)
            except Exception as problem:  # the weights are worth more than a sheet
                log.exception("%s failed: %r", task.__name__, problem)

    def _evaluate_views(self, prior: MultiviewPrior) -> None:
        objects = self.pack.info.objects
        groups = {
            "library": [i for i in self.chosen if objects[i].split == "held_out" and objects[i].source not in GENERATORS],
            "generators": [i for i in self.chosen if objects[i].split == "held_out" and objects[i].source in GENERATORS],
        }
        groups = {name: rows[:: self.options.thin] for name, rows in groups.items()}
        train_rows = self.train_rows[:: 4 * self.options.thin]
        seen = true_sets(self.pool, self.renderer, torch.tensor(train_rows, device=self.device), PIXELS)
        kinds = [objects[i].kind for i in train_rows]
        rows: list[tuple[str, Tensor]] = []
        for name, some in groups.items():
            if not some:
                continue
            truth = true_sets(self.pool, self.renderer, torch.tensor(some, device=self.device), PIXELS)
            trial = Trial(truth, class_means(seen, kinds, [objects[i].kind for i in some]))
            generator = torch.Generator(self.device).manual_seed(1)
            figures, sampled = view_figures(
                prior,
                trial=trial,
                tables=self.tables,
                guidance=self.options.view_guidance,
                steps=self.options.view_steps,
                generator=generator,
            )
            self.facts["figures"][name] = figures
            log.info("%.0f s: %s %s", elapsed(), name, json.dumps(figures))
            shown = range(0, len(some), max(1, len(some) // (8 if name == "library" else 4)))
            rows += [(objects[some[row]].name, torch.cat([sampled[row], truth[row]])) for row in shown]
        sheet(rows[:14]).save(self.out / "views.png")

    def _evaluate_text(self, prior: MultiviewPrior) -> None:
        prompts = range(1, 1 + N_PROMPTS)
        twice = torch.tensor([number for number in prompts for _ in range(2)], device=self.device)[:: self.options.thin]
        generator = torch.Generator(self.device).manual_seed(2)
        found = sets_from_text(
            prior,
            captions=twice,
            tables=self.tables,
            guidance=self.options.text_guidance,
            steps=self.options.text_steps,
            generator=generator,
        )
        captions = [self.pack.info.captions[number] for number in twice.tolist()]
        rows = [(captions[i], torch.cat(list(found[i : i + 2]))) for i in range(0, len(found) - 1, 2)]
        sheet(rows).save(self.out / "text.png")
        self.facts["figures"]["text_uneven_height"] = uneven_height(found)
        log.info("%.0f s: text sheet", elapsed())


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the joint view prior for some minutes.")
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole leg, figures included")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True, help="the shipped autoencoder's safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="results of an earlier leg to begin with")
    parser.add_argument("--state", type=Path, help="file of the whole state, gone on from where it exists")
    parser.add_argument("--cache", type=Path, help="compiled kernels of an earlier call")
    parser.add_argument("--steps", type=int, default=0, help="end at this step in place of the clock")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--pool", type=int, default=16384)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--reserve-s", type=float, default=45.0, help="kept for writing, figures and sheets")
    parser.add_argument("--fill-s", type=float, default=15.0, help="most that filling the pool may take")
    parser.add_argument("--log-s", type=float, default=15.0)
    parser.add_argument("--view-steps", type=int, default=12)
    parser.add_argument("--view-guidance", type=float, default=2.0)
    parser.add_argument("--text-steps", type=int, default=30)
    parser.add_argument("--text-guidance", type=float, default=3.0)
    parser.add_argument("--thin", type=int, default=1, help="every so many-th held-out object")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a network of toy size")
    parser.add_argument("--check", action="store_true", help="everything once, in about forty seconds after compiling")
    return parser.parse_args()


def main() -> None:
    """The command."""
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(options.out / "log.txt")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    torch.backends.cudnn.allow_tf32 = True  # not for matrix products: they also place vertices
    torch.backends.cudnn.benchmark = True
    log.info("torch %s, %s", torch.__version__, torch.cuda.get_device_name() if options.device == "cuda" else options.device)
    Leg(options).run()
    log.info("%.0f s: done", elapsed())


if __name__ == "__main__":
    main()
