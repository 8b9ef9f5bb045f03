"""Pictures and pages, compared with those expected."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from c2c_otel.acceptance.images import check_image, check_image_file, check_page, check_screenshot, difference
from tests.acceptance_kit import Fake, serving
from tests.servers import Chromium

RED, GREEN, CLEAR = (255, 0, 0, 255), (0, 128, 0, 255), (0, 0, 0, 0)


def picture(size: tuple[int, int] = (20, 10), colour: Any = RED, mode: str = "RGBA", **pixels: Any) -> Image.Image:
    """Of one colour, but for ``x3y4=colour``."""
    made = Image.new(mode, size, colour)
    for name, value in pixels.items():
        x, _, y = name.removeprefix("x").partition("y")
        made.putpixel((int(x), int(y)), value)
    return made


class Place:
    """A directory of expected pictures, and one for results."""

    def __init__(self, directory: Path) -> None:
        self.results, self.expected = directory / "results", directory / "tests" / "expected" / "map.png"

    def expect(self, image: Image.Image) -> None:
        self.expected.parent.mkdir(parents=True, exist_ok=True)
        image.save(self.expected)

    def mask(self, image: Image.Image) -> None:
        image.save(self.expected.with_name("map.mask.png"))

    def refused(self, image: Image.Image, **options: Any) -> str:
        with pytest.raises(AssertionError) as caught:
            check_image(self.results, image, self.expected, **options)
        return str(caught.value)

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.results.iterdir()) if self.results.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- the comparison ---------------------------------------------------------------------------------------------------


def test_the_same_picture(place: Place, tmp_path: Path) -> None:
    place.expect(picture())
    check_image(place.results, picture(), place.expected)
    picture().save(tmp_path / "seen.png")
    check_image_file(place.results, tmp_path / "seen.png", place.expected)
    file = BytesIO()
    picture().save(file, "PNG")
    check_image(place.results, file.getvalue(), place.expected)
    assert place.left == []


def test_the_same_picture_in_other_modes(place: Place) -> None:
    place.expect(picture())
    check_image(place.results, picture(mode="RGB", colour=(255, 0, 0)), place.expected)
    check_image(place.results, picture().convert("P"), place.expected)
    place.expect(picture(colour=(7, 7, 7, 255)))
    check_image(place.results, picture(mode="L", colour=7), place.expected)


def test_one_other_pixel(place: Place) -> None:
    place.expect(picture())
    said = place.refused(picture(x3y4=GREEN))
    assert said == (
        f"{place.results}/map.actual.png is not {place.expected}: 1 of 200 pixels differ by more than 0; as expected "
        f"are 0.995000, wanted 1.0. Where: {place.results}/map.diff.png"
    )
    assert place.left == ["map.actual.png", "map.diff.png"]
    with Image.open(place.results / "map.actual.png") as actual:
        assert actual.getpixel((3, 4)) == GREEN
    with Image.open(place.results / "map.diff.png") as drawn:
        assert drawn.size == (20, 10)
        red = [(x, y) for x in range(20) for y in range(10) if drawn.getpixel((x, y)) == (255, 0, 0)]
    assert red == [(3, 4)]


def test_the_level_is_the_share_of_equal_pixels(place: Place) -> None:
    place.expect(picture())
    other = picture(x0y0=GREEN, x1y0=GREEN)
    check_image(place.results, other, place.expected, level=0.99)
    assert place.left == []
    assert "2 of 200 pixels" in place.refused(other, level=0.991)
    check_image(place.results, picture(colour=GREEN), place.expected, level=0)


def test_tolerance_is_for_each_channel(place: Place) -> None:
    place.expect(picture(colour=(100, 100, 100, 255)))
    near = picture(colour=(103, 97, 100, 255))
    check_image(place.results, near, place.expected, tolerance=3)
    assert "200 of 200 pixels differ by more than 2" in place.refused(near, tolerance=2)
    check_image(place.results, picture(colour=CLEAR), place.expected, tolerance=255)


def test_transparency_counts_but_not_what_is_under_it(place: Place) -> None:
    place.expect(picture(colour=CLEAR))
    check_image(place.results, picture(colour=(200, 100, 50, 0)), place.expected)
    place.refused(picture(colour=(0, 0, 0, 40)))
    place.expect(picture(colour=(255, 255, 255, 255)))
    place.refused(picture(colour=CLEAR))


def test_a_mask_hides_what_is_black(place: Place) -> None:
    place.expect(picture())
    other = picture(x3y4=GREEN, x5y5=GREEN)
    place.mask(picture(mode="L", colour=255, x3y4=0))
    assert "1 of 199 pixels" in place.refused(other)
    with Image.open(place.results / "map.diff.png") as drawn:
        assert drawn.getpixel((3, 4)) != (255, 0, 0)
        assert drawn.getpixel((5, 5)) == (255, 0, 0)
    place.mask(picture(mode="RGB", colour=(255, 255, 255), x3y4=(0, 0, 0), x5y5=(9, 9, 9)))
    check_image(place.results, other, place.expected)
    assert "2 of 200 pixels" in place.refused(other, use_mask=False)


def test_a_mask_that_cannot_be_used(place: Place) -> None:
    place.expect(picture())
    place.mask(picture(mode="L", colour=0))
    assert place.refused(picture()).endswith("map.mask.png hides the whole picture")
    place.mask(picture((5, 5), mode="L", colour=255))
    assert f"map.mask.png has 5x5 pixels, {place.expected} 20x10" in place.refused(picture())


def test_another_size(place: Place) -> None:
    place.expect(picture())
    said = place.refused(picture((21, 10)))
    assert said == f"{place.results}/map.actual.png has 21x10 pixels, {place.expected} 20x10"
    assert place.left == ["map.actual.png"]


def test_what_is_no_picture(place: Place, tmp_path: Path) -> None:
    place.expect(picture())
    with pytest.raises(AssertionError, match="not a picture"):
        check_image(place.results, b"<html>", place.expected)
    (tmp_path / "seen.png").write_bytes(b"<html>")
    with pytest.raises(AssertionError, match=r"not a picture: .*seen\.png"):
        check_image_file(place.results, tmp_path / "seen.png", place.expected)
    with pytest.raises(FileNotFoundError):
        check_image_file(place.results, tmp_path / "none.png", place.expected)
    whole = BytesIO()
    picture((200, 200)).save(whole, "PNG")
    with pytest.raises(AssertionError, match="not a picture"):
        check_image(place.results, whole.getvalue()[:60], place.expected)


def test_nothing_to_compare_with(place: Place) -> None:
    said = place.refused(picture())
    assert said.startswith(f"{place.expected}, the picture to compare with, is missing.")
    assert "pytest --c2c-generate-images" in said
    assert place.left == ["map.actual.png"]
    assert not place.expected.exists()
    check_image(place.results, picture(), place.expected, generate_expected_image=True)
    check_image(place.results, picture(), place.expected)
    check_image(place.results, picture(colour=GREEN), place.expected, generate_expected_image=True)
    place.refused(picture())


@pytest.mark.parametrize("wrong", [{"level": 1.5}, {"level": -1}, {"tolerance": 256}, {"tolerance": -1}])
def test_levels_that_make_no_sense(place: Place, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        check_image(place.results, picture(), place.expected, **wrong)


_pixels = st.binary(min_size=4 * 12, max_size=4 * 12)


@given(_pixels, _pixels, st.integers(0, 255))
def test_differences_are_those_of_the_pixels(one: bytes, other: bytes, tolerance: int) -> None:
    """On opaque pictures, against a comparison written out."""
    one, other = (bytes(255 if n % 4 == 3 else byte for n, byte in enumerate(raw)) for raw in (one, other))
    first, second = (Image.frombytes("RGBA", (4, 3), raw) for raw in (one, other))
    differing, compared = difference(first, second, None, tolerance)
    far = [max(abs(one[n + k] - other[n + k]) for k in range(3)) > tolerance for n in range(0, 48, 4)]
    assert list(differing.tobytes()) == [255 * wrong for wrong in far]
    assert compared.tobytes() == b"\xff" * 12


# -- pages ------------------------------------------------------------------------------------------------------------

PAGE = b"""<!doctype html><link rel="icon" href="data:,"><style>body {margin: 0; background: #00f}
div {height: 50px; width: 50px; background: #0f0; animation: blink 0.1s infinite}
input {border: 0; caret-color: red; outline: 0}
@keyframes blink {50% {background: #f00}}</style><div></div><input autofocus>
<script>setTimeout(() => document.body.lastElementChild.id = "late", 200)</script><p>there</p>"""


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with serving() as fake:
        html = {"Content-Type": "text/html"}
        fake.answers = {"/": (200, html, PAGE), "/broken": (500, html, b"broken")}
        yield fake


def launch(chromium: Chromium) -> dict[str, Any]:
    program = chromium._program
    return {"executable_path": str(chromium.executable), "args": ["--no-sandbox"], "env": dict(program.environ())}


def test_a_page_that_somebody_has_opened(chromium: Chromium, fake: Fake, place: Place) -> None:
    with chromium.page(200, 100) as page:
        page.goto(fake.url)
        check_page(page, place.results, place.expected, generate_expected_image=True)
        for _ in range(3):  # whatever moves, and the caret, is not seen
            check_page(page, place.results, place.expected)
        page.add_style_tag(content="div {width: 60px !important}")
        with pytest.raises(AssertionError, match="500 of 20000 pixels differ"):
            check_page(page, place.results, place.expected, 0.99)
    assert place.left == ["map.actual.png", "map.diff.png"]


def test_a_screenshot(chromium: Chromium, fake: Fake, place: Place) -> None:
    options: dict[str, Any] = {"width": 200, "height": 100, "headers": {"X-Who": "me"}, "launch": launch(chromium)}
    with pytest.raises(AssertionError, match="is missing"):
        check_screenshot(fake.url, place.results, place.expected, **options, wait_for="#late", sleep=0)
    with Image.open(place.results / "map.actual.png") as actual:
        assert actual.size == (200, 100)
        assert actual.convert("RGB").getpixel((25, 25)) == (0, 255, 0)
        assert actual.convert("RGB").getpixel((150, 90)) == (0, 0, 255)
    assert fake.asked[-1].headers["X-Who"] == "me"
    (place.results / "map.actual.png").unlink()
    with pytest.raises(AssertionError, match=r"broken\?secret=\*\*\*: 500 "):
        check_screenshot(f"{fake.url}broken?secret=abc", place.results, place.expected, **options)
    assert place.left == []


# -- the fixture ------------------------------------------------------------------------------------------------------

SUITE = """
from PIL import Image

def test_a_map(c2c_images):
    c2c_images.check(Image.new("RGB", (4, 4), "{colour}"), "map.png")
"""


def test_the_fixture(tmp_path: Path) -> None:
    def suite(colour: str, *options: str) -> str:
        (tmp_path / "test_suite.py").write_text(SUITE.format(colour=colour))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_suite.py"]
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60).stdout

    assert "expected/map.png, the picture to compare with, is missing" in suite("red")
    assert "1 passed" in suite("red", "--c2c-generate-images")
    assert (tmp_path / "expected" / "map.png").exists()
    assert "1 passed" in suite("red")
    assert "16 of 16 pixels differ" in suite("blue", "--c2c-image-results=seen")
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["map.actual.png", "map.diff.png"]
