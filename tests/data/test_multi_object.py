"""Sprites, scenes and shrunken digits: pixel by pixel those of the reference generator."""

from pathlib import Path

import numpy as np
import pytest
from golden_cases import arrays_of

from data_scripts.multi_mnist import binary_sprites, shrink
from data_scripts.multi_object import (
    CANVAS,
    COLOURS,
    N_ANGLES,
    PATCH,
    SCALES,
    SHAPES,
    Scene,
    coloured_sprites,
    draw_scenes,
    render,
    rendered_in_parts,
    sprite_masks,
)

HERE = Path(__file__).resolve().parents[1] / "golden" / "multi_object"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "golden" / "spatial_lvae" / "multi_object"
THIRDS = {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}
DATASETS = [
    ("dataset_overlap_seed7", THIRDS, True, 7),
    ("dataset_no_overlap_seed8", {1: 0.25, 3: 0.75}, False, 8),
]


@pytest.fixture(scope="module", params=["small copies", "shared"])
def golden(request: pytest.FixtureRequest) -> Path:
    """The recorded arrays: the copies in the repository, and the originals where they are at hand."""
    folder = HERE if request.param == "small copies" else SHARED
    if not folder.is_dir():
        pytest.skip("needs ../shared, which is not part of the repository")
    return folder


@pytest.fixture(scope="module")
def sprites() -> np.ndarray:
    return coloured_sprites()


def drawn(case: tuple[str, dict[int, float], bool, int], n: int) -> list[Scene]:
    _, counts, overlap, seed = case
    return draw_scenes(n, 5040, counts, overlap, np.random.RandomState(seed))


def test_masks_are_the_recorded_ones(golden: Path) -> None:
    arrays = arrays_of(golden / "sprite_masks_18.npz")
    recorded = np.unpackbits(arrays["masks_packed"], axis=-1)[..., : PATCH**2].reshape(6, -1, 3, PATCH, PATCH)
    angles = np.round(arrays["angle"] / (2 * np.pi / N_ANGLES)).astype(int)
    different = (sprite_masks()[:, angles] != recorded).sum(axis=(-1, -2))
    # Edges of the largest square run exactly through pixels at 0, 90, 180 and 270 degrees: there, ties decide.
    ties = {(5, int(np.flatnonzero(angles == angle)[0]), 0) for angle in (0, 10, 20, 30)}
    assert {tuple(map(int, index)) for index in np.argwhere(different)} == ties
    assert different.max() < 15


@pytest.mark.parametrize("case", DATASETS, ids=[case[0] for case in DATASETS])
def test_images_are_the_recorded_ones(
    golden: Path, sprites: np.ndarray, case: tuple[str, dict[int, float], bool, int]
) -> None:
    arrays = arrays_of(golden / f"{case[0]}.npz")
    assert np.array_equal(render(drawn(case, len(arrays["x"])), sprites) * 255, arrays["x"])


@pytest.mark.parametrize("case", DATASETS, ids=[case[0] for case in DATASETS])
def test_scenes_hold_the_recorded_objects(golden: Path, case: tuple[str, dict[int, float], bool, int]) -> None:
    """Sprites are nested by scale, colour, angle, shape: their numbers give the recorded labels back."""
    arrays = arrays_of(golden / f"{case[0]}.npz")
    scenes = drawn(case, len(arrays["x"]))
    assert [len(scene.sprites) for scene in scenes] == arrays["n_obj"].tolist()
    for i, scene in enumerate(scenes):
        k = len(scene.sprites)
        scale, colour, angle, shape = np.unravel_index(scene.sprites, (len(SCALES), len(COLOURS), N_ANGLES, 3))
        assert np.array_equal(shape, arrays["label_shape"][i, :k])
        assert np.allclose(angle * 2 * np.pi / N_ANGLES, arrays["label_angle"][i, :k])
        assert np.array_equal(COLOURS[colour] > 0, arrays["label_color"][i, :k] > 0)
        assert np.allclose(SCALES[scale], arrays["label_scale"][i, :k])


def test_digits_shrink_as_recorded(golden: Path) -> None:
    arrays = arrays_of(golden / "digit_shrink_28_to_18.npz")
    assert np.allclose(shrink(arrays["gray28"]), arrays["gray18"], atol=1e-6)
    assert np.array_equal(binary_sprites(arrays["gray28"])[..., 0] * 255, arrays["binary18"])


def test_digits_shrink_as_scikit_image_does_one_by_one() -> None:
    from skimage.transform import resize

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)  # the hardest case: overshoot everywhere
    faint = rng.integers(40, 90, (20, 28, 28), dtype=np.uint8)  # clipped to its own range, not to [0, 1]
    for digits in (noise, faint):
        one_by_one = [resize(digit / 255, (18, 18), order=3, mode="constant", anti_aliasing=True) for digit in digits]
        assert np.allclose(shrink(digits), one_by_one, atol=1e-12)


def test_digits_are_shrunk_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    whole = binary_sprites(digits)
    monkeypatch.setattr("data_scripts.multi_mnist.AT_ONCE", 3)
    assert np.array_equal(binary_sprites(digits), whole)
    assert whole.shape == (7, 18, 18, 1)


def test_sprites_are_what_the_recipe_says(sprites: np.ndarray) -> None:
    assert sprites.shape == (5040, PATCH, PATCH, 3)
    areas = sprites.max(axis=-1).sum(axis=(1, 2)).reshape(-1, len(SHAPES))
    assert (areas.min(), abs(areas.mean(axis=0) - [97, 63, 101]).max() < 1) == (26, True)
    assert len(np.unique(sprites.reshape(len(sprites), -1), axis=0)) < len(sprites)  # a square turned by 90 degrees


@pytest.mark.parametrize("n", [10, 11, 12, 100])
def test_counts_are_thirds_rounded_up_from_most_objects_on(n: int) -> None:
    counts = np.bincount([len(s.sprites) for s in draw_scenes(n, 9, THIRDS, True, np.random.RandomState(0))])
    assert counts.tolist() == [n - 2 * -(-n // 3), -(-n // 3), -(-n // 3)]


def test_the_published_number_of_images_has_the_published_counts() -> None:
    scenes = draw_scenes(100_000, 9, THIRDS, True, np.random.RandomState(0))
    assert np.bincount([len(scene.sprites) for scene in scenes]).tolist() == [33_332, 33_334, 33_334]
    rows = np.concatenate([scene.rows for scene in scenes])
    assert (rows.min(), rows.max()) == (0, CANVAS - PATCH)
    counts = np.bincount(rows)
    expected = len(rows) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 46 + 5 * (2 * 46) ** 0.5  # chi-square of 47 equal bins


def test_patches_stay_apart_where_overlap_is_forbidden() -> None:
    scenes = draw_scenes(50, 9, {4: 1.0}, False, np.random.RandomState(0))
    for scene in scenes:
        taken = np.zeros((CANVAS, CANVAS), dtype=int)
        for row, column in zip(scene.rows, scene.columns, strict=True):
            taken[row : row + PATCH, column : column + PATCH] += 1
        assert taken.max() == 1


def test_colours_add_up(sprites: np.ndarray) -> None:
    red, green = (sprites.reshape(6, 7, N_ANGLES, 3, PATCH, PATCH, 3)[5, colour, 3, 2] for colour in (1, 2))
    one_place = np.array([7, 7])
    image = render([Scene(np.array([0, 1]), one_place, one_place)], np.stack([red, green]))[0]
    inside = image[7 + PATCH // 2, 7 + PATCH // 2]
    assert inside.tolist() == [1, 1, 0]  # yellow
    assert image.max() == 1


def test_parts_are_the_whole(sprites: np.ndarray) -> None:
    scenes = draw_scenes(25, 5040, THIRDS, True, np.random.RandomState(0))
    assert np.array_equal(np.concatenate(list(rendered_in_parts(scenes, sprites, part=10))), render(scenes, sprites))


def test_nothing_touches_the_global_generator() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    draw_scenes(10, 9, THIRDS, True, np.random.RandomState(0))
    assert np.random.get_state()[1].tolist() == before
