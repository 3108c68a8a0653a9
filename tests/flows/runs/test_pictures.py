"""Several pictures at the door: what each line of a command means, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.report.settings import run_line
from flows.runs.create import new_run
from flows.runs.inputs import GivenPicture, GivenPictures, pictures_of
from flows.runs.roots import given_pictures
from flows.store.exchange import inputs_of
from schemas.config.presets import ConfigError
from schemas.config.run import Config
from schemas.runs import RunRecord
from stages.runtime.command import input_path, others_of
from stages.runtime.records import read_record

pytestmark = pytest.mark.usefixtures("priors_folder")


def block(path: Path, columns: tuple[int, int] = (20, 44), rows: tuple[int, int] = (16, 48)) -> Path:
    """A picture of a dark block on white; other columns, other bytes."""
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[rows[0] : rows[1], columns[0] : columns[1]] = 80
    Image.fromarray(picture).save(path)
    return path


def four(folder: Path) -> list[str]:
    """Lines for a front and three sides, and the files."""
    names = {"front.png": "", "left.png": "@90,20", "back.png": "@180", "right.png": "@-90"}
    return [f"{block(folder / name, (20, 44 + place))}{pose}" for place, (name, pose) in enumerate(names.items())]


def made(store: Path, given: GivenPictures, *overrides: str) -> RunRecord:
    settings = [*given.settings, *overrides]
    return new_run(store, "a chair", "smoke", settings, given.front, others=given.others)


def test_a_pose_stands_behind_the_file_and_the_front_needs_none(tmp_path: Path) -> None:
    front, left = block(tmp_path / "front@home.png"), block(tmp_path / "left.png")
    given = pictures_of([f"{left}@270,10.5", str(front), f"{left}@-180"], Path)
    assert given.front == front
    assert given.others == (GivenPicture(left, -90, 10.5), GivenPicture(left, -180, None))
    assert given.settings == ()
    assert pictures_of([f"{front}@0,25"], Path) == GivenPictures(front, (), ("reference.elevation_deg=25.0",))
    assert pictures_of([], Path) == GivenPictures()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["front.png", "left.png@abc"], "'abc' is no pose"),
        (["front.png", "left.png@90,"], "'90,' is no pose"),
        (["front.png", "left.png@90,10,4"], "is no pose"),
        (["front.png", "left.png@"], "is no pose"),
        (["front.png", "left.png@nan"], "between -360 and 360"),
        (["front.png", "left.png@900"], "between -360 and 360"),
        (["front.png", "left.png@90,75"], "elevation 75 is too steep"),
        (["front.png", "left.png"], "both show the front"),
        (["left.png@90"], "no picture shows the front"),
        ([f"left.png@{angle}" for angle in range(13)], "13 pictures were given, the limit is 12"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused_in_one_line(lines: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        pictures_of(lines, Path)
    assert "\n" not in str(told.value)


def test_a_record_keeps_all_pictures_and_their_poses(store: Path, tmp_path: Path) -> None:
    record = made(store, pictures_of(four(tmp_path), Path))
    assert read_record(store, record.run) == record
    poses = [(each.azimuth_deg, each.elevation_deg) for each in record.others]
    assert poses == [(90, 20), (-180, 10), (-90, 10)]  # the front's elevation where none is given
    assert inputs_of(record) == [record.image, *(each.image for each in record.others)]
    assert all(input_path(store, digest).is_file() for digest in record.inputs)
    files = others_of(record, store)
    assert [file.path.read_bytes() for file in files] == [
        (tmp_path / name).read_bytes() for name in ("left.png", "back.png", "right.png")
    ]
    assert [tuple(file[1:]) for file in files] == poses


def test_a_record_of_one_picture_is_read_as_before() -> None:
    record = RunRecord(run="a" * 8, prompt="a chair", config=Config(), created="")
    older = record.model_dump(mode="json")
    del older["others"]
    assert RunRecord.model_validate(older) == record


def test_the_command_that_makes_a_run_again_names_all_pictures(store: Path, tmp_path: Path) -> None:
    record = made(store, pictures_of(four(tmp_path), Path))
    words = run_line(record, store, []).split()
    lines = [words[place + 1] for place, word in enumerate(words) if word == "--image"]
    again = made(store, pictures_of(lines, Path))
    assert (again.image, again.others) == (record.image, record.others)


def test_pictures_of_one_place_twice_given_or_cut_off_are_refused(store: Path, tmp_path: Path) -> None:
    front, other = block(tmp_path / "front.png"), block(tmp_path / "other.png", (22, 44))
    cut = block(tmp_path / "cut.png", rows=(30, 64))
    for lines, words in (
        (
            [f"{front}", f"{other}@90", f"{block(tmp_path / 'third.png', (24, 44))}@91"],
            "other.png are said to be taken from one",
        ),
        ([f"{front}", f"{other}@1"], "the front's picture are said to be taken from one place"),
        ([f"{front}", f"{front}@180"], "front.png is the front's picture once more"),
        ([f"{front}", f"{cut}@180"], "cut off at the bottom"),
        ([f"{cut}", f"{other}@180"], "cut off at the bottom"),
    ):
        with pytest.raises(ConfigError, match=words) as told:
            made(store, pictures_of(lines, Path))
        assert "\n" not in str(told.value)
    assert not (store / "runs").exists()
    made(store, pictures_of([str(cut)], Path))  # alone its scale does not count


def test_a_deployment_takes_hashes_with_poses(store: Path, tmp_path: Path) -> None:
    record = made(store, pictures_of(four(tmp_path), Path))
    given = given_pictures(store, [str(record.image), *(f"{each.image}@{each.azimuth_deg:g}" for each in record.others)])
    again = made(store, given)
    assert [each.image for each in again.others] == [each.image for each in record.others]
    assert given_pictures(store, None) == GivenPictures()
    assert given_pictures(store, str(record.image)).front == input_path(store, str(record.image))
    with pytest.raises(ConfigError, match=r"no picture 000000000000"):
        given_pictures(store, [str(record.image), f"{'0' * 64}@180"])
    with pytest.raises(ConfigError, match="lies outside"):
        given_pictures(store, [str(record.image), "/etc/hostname@180"])
