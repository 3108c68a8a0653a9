"""A benchmark's asset without fault, and what differs from it."""

from dataclasses import replace

from flows.benchmark.assets.checks import Agreement, AssetResult

SOUND = AssetResult(
    name="chair",
    run="0123abcd",
    checker="Khronos",
    errors=0,
    warnings=0,
    megabytes=1.5,
    triangles=20_000,
    ours=Agreement(48, 44),
    browser=Agreement(47, 40),
    normals=None,
    note="",
)


def asset_with(**changes: object) -> AssetResult:
    """The sound one with other values."""
    return replace(SOUND, **changes)  # type: ignore[arg-type]
