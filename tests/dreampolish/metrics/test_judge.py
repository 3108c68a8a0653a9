"""The judge: network identities, the loss, caption keys, and the shipped weights on plain pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreampolish.data.batches import RenderedViews
from dreampolish.data.captions import keys_of_captions, parse_caption, positives
from dreampolish.metrics.judge import FILES, AlignmentScorer, load_alignment, retrieval_hits, without_view_words
from dreampolish.metrics.judge_network import (
    FEATURES,
    ImageHead,
    LiteTrunk,
    SameConv,
    TextHead,
    color_statistics,
)
from dreampolish.metrics.retrieval import held_out_names
from dreampolish.training.judge import COARSE, contrastive_loss, degraded, retrieval

JUDGE = Path(__file__).parents[3] / "priors" / "home" / "judge"


def test_same_conv_pads_to_the_right_as_tensorflow_does() -> None:
    layer = SameConv(1, 1, 3, 2, 1)
    torch.nn.init.ones_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    # Windows start at 0 and 2; the fifth row and column are padding.
    expected = torch.tensor([[0 + 1 + 2 + 4 + 5 + 6 + 8 + 9 + 10, 2 + 3 + 6 + 7 + 10 + 11], [8 + 9 + 10 + 12 + 13 + 14, 50]])
    torch.testing.assert_close(layer(picture)[0, 0], expected.float())


def test_trunk_features_have_the_stated_length_and_no_gradient() -> None:
    trunk = LiteTrunk().eval()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0), requires_grad=True)
    features = trunk(images)
    assert features.shape == (2, FEATURES)
    assert not features.requires_grad


def test_color_statistics_ignore_white() -> None:
    picture = torch.ones(1, 3, 8, 8)
    picture[:, :, 2:4, 2:6] = torch.tensor([0.8, 0.2, 0.1]).view(1, 3, 1, 1)
    found = color_statistics(picture)[0]
    torch.testing.assert_close(found[:3], torch.tensor([0.8, 0.2, 0.1]))
    torch.testing.assert_close(found[3:6], torch.zeros(3), atol=1e-6, rtol=0)


def test_heads_answer_unit_vectors() -> None:
    image, text = ImageHead(16, 8, 0.0), TextHead(12, 16, 8, 0.0)
    torch.testing.assert_close(image(torch.randn(3, FEATURES)).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text(torch.randn(3, 12)).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("caption", "parsed"),
    [
        ("a red armchair, side view", ("armchair", "red")),
        ("an office chair", ("office chair", "")),
        ("orange scissors, front view", ("scissors", "orange")),
        ("a brown wooden table", ("table", "brown wooden")),
    ],
)
def test_captions_are_parsed(caption: str, parsed: tuple[str, str]) -> None:
    assert parse_caption(caption) == parsed


def test_positives_join_synonyms_and_missing_colours_only() -> None:
    keys = keys_of_captions(["sofa", "couch", "sofa", "office chair", "chair"], ["red", "", "blue", "grey", "gray"])
    found = positives(keys)
    expected = torch.eye(5, dtype=torch.bool)
    for a, b in ((0, 1), (1, 2), (3, 4)):
        expected[a, b] = expected[b, a] = True
    assert torch.equal(found, expected)


def test_contrastive_loss_of_orthogonal_pairs_has_its_closed_form() -> None:
    vectors = torch.eye(4)
    alone = torch.eye(4, dtype=torch.bool)
    expected = -torch.log(torch.exp(torch.tensor(5.0)) / (torch.exp(torch.tensor(5.0)) + 3))
    torch.testing.assert_close(contrastive_loss(vectors, vectors, alone, 5.0), expected)
    everything = torch.ones(4, 4, dtype=torch.bool)
    torch.testing.assert_close(contrastive_loss(vectors, vectors, everything, 5.0), torch.tensor(0.0))


def test_degraded_stays_in_range_and_touches_only_some() -> None:
    images = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = degraded(images, torch.Generator().manual_seed(1))
    untouched = (found == images).flatten(1).all(dim=1).float().mean()
    assert 0.2 < untouched < 0.75
    assert found.min() >= 0
    assert found.max() <= 1


def test_retrieval_hits_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right = torch.tensor([[True, False], [True, False]])
    assert retrieval_hits(images, torch.eye(2), right).tolist() == [True, False]


def test_view_words_are_dropped() -> None:
    assert without_view_words("a red armchair, side view") == "a red armchair"
    assert without_view_words("a table, four legs") == "a table, four legs"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=FILES[1]):
        load_alignment(tmp_path)


@pytest.fixture(scope="module")
def judge() -> AlignmentScorer:
    return load_alignment(JUDGE)


def test_shipped_judge_knows_colours_of_a_benchmark_reference(judge: AlignmentScorer) -> None:
    from dreampolish.scene.pictures import read_picture

    folder = JUDGE.parents[2] / "benchmark" / "objects"
    rgba = torch.stack(
        [read_picture(folder / name / "reference.png") for name in ("leather-armchair", "oak-table", "teddy-bear")]
    )
    pictures = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).permute(0, 3, 1, 2)
    images = judge.embed_images(pictures)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    texts = judge.embed_texts(["a red armchair", "a wooden table", "a teddy bear"])
    assert (images @ texts.T).argmax(dim=1).tolist() == [0, 1, 2]
    blue = judge.embed_texts(["a blue armchair"])
    assert float(images[0] @ texts[0]) > float(images[0] @ blue[0])


WORDS = sorted({"armchair", "dining table", "dragon", *COARSE})


class ByWord(AlignmentScorer):
    """A judge whose vectors are the words' own axes; a picture's vector is told in its first pixels."""

    def __init__(self) -> None:
        pass

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, : len(WORDS)]

    def embed_texts(self, prompts: object) -> torch.Tensor:
        assert isinstance(prompts, list)
        return torch.eye(len(WORDS))[[WORDS.index(text.split(" ", 1)[1]) for text in prompts]]


class ThreeObjects(RenderedViews):
    """An armchair seen three times, once from too near; a dining table; a dragon."""

    SEEN = (("armchair",), ("dragon", "lamp"), ("lamp",), ("dining table", "table"), ("dragon",))

    def __init__(self) -> None:
        self.entries = [None, None, None]
        self.view_objects, self.fov_deg = np.array([0, 0, 0, 1, 2]), np.array([20.0, 40.0, 60.0, 20.0, 20.0])

    def nouns(self, place: int) -> list[str]:
        return [["armchair", "seat"], ["dining table"], ["dragon"]][place]

    def original_pictures(self, views: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        pictures = torch.zeros(len(views), 3, len(WORDS), len(WORDS))
        for row, view in enumerate(views):
            for weight, word in zip((1.0, 0.5), self.SEEN[view]):
                pictures[row, 0, 0, WORDS.index(word)] = weight
        return pictures


def test_retrieval_of_three_objects_by_hand() -> None:
    found = retrieval(ByWord(), ThreeObjects(), 0)
    # Four pictures at 45 degrees or less. Names: armchair right, dragon for an armchair wrong, table and dragon right.
    assert (found["pictures"], found["n_names"], found["pictures_names"]) == (4, 3, 4)
    assert found["r_precision_names"] == pytest.approx(3 / 4)
    assert found["chance_names"] == pytest.approx(1 / 3)
    # Classes know no dragon: three pictures; armchair right, lamp for an armchair wrong, table right.
    assert found["pictures_classes"] == 3
    assert found["r_precision_classes"] == pytest.approx(2 / 3)
    assert found["chance_classes"] == pytest.approx(1 / len(COARSE))


def test_held_out_names_are_the_splits_nouns_once(tmp_path: Path) -> None:
    fields = {
        "tags": [],
        "category": "Living room",
        "licence": "CC0-1.0",
        "creator": "",
        "size_m": [1.0, 1.0, 1.0],
        "rotation": None,
    }
    objects = [
        {**fields, "identifier": key, "name": name, "library": "none", "model_path": "none.obj"}
        for key, name in (("1", "Sofa"), ("2", "Armchair"), ("3", "Sofa"), ("4", "Lamp"))
    ]
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["4"], "validation": [], "held_out": ["1", "2", "3"]}))
    assert held_out_names(tmp_path / "objects.json", tmp_path / "split.json") == ["armchair", "sofa"]
