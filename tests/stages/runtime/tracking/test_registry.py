"""The priors in MLflow's registry: a version for each content, an alias for the one in use."""

import json
from pathlib import Path

from mlflow import MlflowClient

from stages.runtime.tracking.journal import place_from_store
from stages.runtime.tracking.registry import register_priors


def priors(home: Path) -> Path:
    """A folder of two priors with weights, a config and a sheet too large to be kept."""
    for part in ("text", "judge"):
        (home / part / "unet").mkdir(parents=True)
        (home / part / "unet" / "config.json").write_text('{"size": 1}')
        (home / part / "unet" / "weights.safetensors").write_bytes(part.encode())
        (home / part / "sheet.png").write_bytes(b"p" * 10)
    (home / "README.md").write_text("# card")
    (home / "figures.json").write_text(json.dumps({"text": {"prompt_ranked_first": 0.9}}))
    return home


def test_new_content_is_a_new_version_and_the_alias_follows(store: Path, tracker: str, tmp_path: Path) -> None:
    home, place = priors(tmp_path / "home"), place_from_store(store, tracker)
    first = register_priors(place, home, "home", "priors/home")
    assert [(each.name, each.version, each.is_new, each.replaces) for each in first] == [
        ("dreampolish-text", "1", True, None),
        ("dreampolish-judge", "1", True, None),
    ]
    again = register_priors(place, home, "home", "priors/home")
    assert [(each.version, each.is_new, each.replaces) for each in again] == [("1", False, None)] * 2
    weights = home / "text/unet/weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"trained anew")
    text, judge = register_priors(place, home, "home", "priors/home")
    assert (text.version, text.is_new, text.replaces) == ("2", True, first[0].digest)
    assert (judge.version, judge.is_new, judge.replaces) == ("1", False, None)
    client = MlflowClient(tracking_uri=tracker)
    assert client.get_model_version_by_alias("dreampolish-text", "home").tags["sha256"] == text.digest
    # An earlier content comes back: no third version.
    weights.write_bytes(kept)
    back = register_priors(place, home, "home", "priors/home")[0]
    assert (back.version, back.is_new, back.replaces) == ("1", False, text.digest)
    assert len(client.search_model_versions("name = 'dreampolish-text'")) == 2


def test_a_version_shows_card_configs_and_figures_but_no_weights(store: Path, tracker: str, tmp_path: Path) -> None:
    register_priors(place_from_store(store, tracker), priors(tmp_path / "home"), "home", "priors/home")
    client = MlflowClient(tracking_uri=tracker)
    version = client.get_model_version_by_alias("dreampolish-text", "home")
    assert version.tags["folder"] == "priors/home/text"
    assert version.source == f"runs:/{version.run_id}/text"
    assert client.get_run(version.run_id).data.metrics == {"final/text/prompt_ranked_first": 0.9}
    kept = store / "mlartifacts" / version.run_id / "artifacts"
    names = sorted(path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file())
    shown = [f"{part}/{name}" for part in ("judge", "text") for name in ("sheet.png", "unet/config.json")]
    assert names == sorted(["README.md", "figures.json", *shown])


def test_a_registration_that_was_killed_is_taken_up(store: Path, tracker: str, tmp_path: Path) -> None:
    home, place = priors(tmp_path / "home"), place_from_store(store, tracker)
    register_priors(place, home, "home", "priors/home")
    client = MlflowClient(tracking_uri=tracker)
    run = client.get_model_version_by_alias("dreampolish-text", "home").run_id
    client.delete_registered_model("dreampolish-text")
    (text, _) = register_priors(place, home, "home", "priors/home")
    assert text.is_new
    assert client.get_model_version("dreampolish-text", text.version).run_id == run, "no second run for the same content"
