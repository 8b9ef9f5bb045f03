"""Pictures and screenshots, compared pixel by pixel with those expected.

    check_image("results", Image.open("map.png"), "tests/expected/map.png", level=0.999)

What is expected stands beside the tests; a file of the same name that ends in ``.mask.png`` hides (black) what changes
from one time to the next. Where the picture is another one, the directory for results gets what was seen
(``map.actual.png``) and where it differs (``map.diff.png``: red on what is expected, faded).
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2c_otel.acceptance._extra import missing
from c2c_otel_exporters import masking

try:
    from PIL import Image, ImageChops, UnidentifiedImageError
except ImportError as _error:
    raise missing("c2c_otel.acceptance.images", _error) from _error

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["check_image", "check_image_file", "check_page", "check_screenshot", "difference"]

Picture = Image.Image
_SHOWN_BELOW = 128  # of 255: a mask drawn with soft edges hides up to the middle of the edge


def check_image_file(
    result_folder: str | Path,
    image_filename_to_check: str | Path,
    expected_filename: str | Path,
    level: float = 1.0,
    generate_expected_image: bool = False,
    use_mask: bool = True,
    *,
    tolerance: int = 0,
) -> None:
    """`check_image` of a file."""
    image = _opened(Path(image_filename_to_check))
    check_image(result_folder, image, expected_filename, level, generate_expected_image, use_mask, tolerance=tolerance)


def check_image(
    result_folder: str | Path,
    image_to_check: Picture | bytes,
    expected_filename: str | Path,
    level: float = 1.0,
    generate_expected_image: bool = False,
    use_mask: bool = True,
    *,
    tolerance: int = 0,
) -> None:
    """Raises AssertionError where less than the share ``level`` (0 to 1) of the pixels is as expected.

    A pixel is as expected when none of red, green, blue and alpha (0 to 255) differs by more than ``tolerance``; what
    is fully transparent is alike. ``image_to_check`` is a PIL image or the bytes of a file. ``generate_expected_image``
    writes the expected file instead of reading it."""
    if not 0 <= level <= 1 or not 0 <= tolerance <= 255:
        raise ValueError(f"level={level!r} is the share 0 to 1 of equal pixels, tolerance={tolerance!r} 0 to 255")
    image = image_to_check if isinstance(image_to_check, Image.Image) else _opened(BytesIO(image_to_check))
    expected_file, results = Path(expected_filename), Path(result_folder)
    if generate_expected_image:
        expected_file.parent.mkdir(parents=True, exist_ok=True)
        image.save(expected_file)
        return
    actual = results / f"{expected_file.stem}.actual.png"
    if not expected_file.exists():
        _save(image, actual)
        raise AssertionError(
            f"{expected_file}, the picture to compare with, is missing. If {actual} is as it should be, copy it there; "
            "or let the test write it once: generate_expected_image=True, with the fixture pytest --c2c-generate-images"
        )
    expected = _opened(expected_file)
    if image.size != expected.size:
        _save(image, actual)
        raise AssertionError(f"{actual} has {_size(image)} pixels, {expected_file} {_size(expected)}")
    mask_file = expected_file.with_suffix(".mask.png")
    mask = _opened(mask_file) if use_mask and mask_file.exists() else None
    if mask is not None and mask.size != expected.size:
        raise AssertionError(f"{mask_file} has {_size(mask)} pixels, {expected_file} {_size(expected)}")
    differing, compared = difference(image, expected, mask, tolerance)
    count, total = differing.histogram()[255], compared.histogram()[255]
    if not total:
        raise AssertionError(f"{mask_file} hides the whole picture")
    if 1 - count / total >= level:
        return
    drawn = results / f"{expected_file.stem}.diff.png"
    _save(image, actual)
    _save(_drawn(expected, differing), drawn)
    raise AssertionError(
        f"{actual} is not {expected_file}: {count} of {total} pixels differ by more than {tolerance}; as expected are "
        f"{1 - count / total:.6f}, wanted {level}. Where: {drawn}"
    )


def difference(
    image: Picture, expected: Picture, mask: Picture | None = None, tolerance: int = 0
) -> tuple[Picture, Picture]:
    """Two pictures of mode L, of 0 and 255 alone: which pixels differ, which were compared. All have one size."""
    compared = Image.new("L", expected.size, 255)
    if mask is not None:
        compared = mask.convert("L").point([0] * _SHOWN_BELOW + [255] * (256 - _SHOWN_BELOW))
    farthest = Image.new("L", expected.size, 0)
    for one, other in zip(_bands(image), _bands(expected), strict=True):
        farthest = ImageChops.lighter(farthest, ImageChops.difference(one, other))
    differing = farthest.point([0] * (tolerance + 1) + [255] * (255 - tolerance))
    return ImageChops.darker(differing, compared), compared


def check_page(
    page: Page,
    result_folder: str | Path,
    expected_filename: str | Path,
    level: float = 1.0,
    generate_expected_image: bool = False,
    use_mask: bool = True,
    *,
    tolerance: int = 0,
    full_page: bool = False,
) -> None:
    """`check_image` of a page that playwright shows, without its animations and its cursor."""
    shot = page.screenshot(full_page=full_page, animations="disabled", caret="hide")
    check_image(result_folder, shot, expected_filename, level, generate_expected_image, use_mask, tolerance=tolerance)


def check_screenshot(
    url: str,
    result_folder: str | Path,
    expected_filename: str | Path,
    width: int = 800,
    height: int = 600,
    sleep: float = 100,
    headers: Mapping[str, str] | None = None,
    level: float = 1.0,
    generate_expected_image: bool = False,
    use_mask: bool = True,
    *,
    tolerance: int = 0,
    full_page: bool = False,
    wait_for: str | None = None,
    launch: Mapping[str, Any] | None = None,
) -> None:
    """`check_page` of a URL, in a Chromium of its own: about a second.

    It is taken ``sleep`` milliseconds after the page has loaded and, with ``wait_for``, an element of that CSS selector
    can be seen. ``headers`` go with each request of the page. ``launch`` are further keywords of playwright's
    ``chromium.launch``: ``executable_path`` where the browser is not playwright's own. Raises ImportError without
    playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        remedy = "pip install playwright && playwright install chromium"
        raise missing("check_screenshot", error, remedy) from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**(launch or {}))
        try:
            page = browser.new_page(viewport={"width": width, "height": height}, extra_http_headers=dict(headers or {}))
            answer = page.goto(url)
            if answer is not None and not answer.ok:
                raise AssertionError(f"{masking.mask(url)}: {answer.status} {answer.status_text}")
            if wait_for is not None:
                page.wait_for_selector(wait_for)
            page.wait_for_timeout(sleep)
            check_page(
                page,
                result_folder,
                expected_filename,
                level,
                generate_expected_image,
                use_mask,
                tolerance=tolerance,
                full_page=full_page,
            )
        finally:
            browser.close()


def _opened(file: Path | BytesIO) -> Picture:
    """Read as a whole, and closed."""
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise AssertionError(f"not a picture: {error}") from error


def _bands(image: Picture) -> tuple[Picture, ...]:
    """Red, green, blue and alpha, the colours multiplied with alpha: as much as one sees of them."""
    return image.convert("RGBA").convert("RGBa").split()


def _drawn(expected: Picture, differing: Picture) -> Picture:
    faded = Image.blend(expected.convert("RGBA").convert("RGB"), Image.new("RGB", expected.size, "white"), 0.7)
    faded.paste((255, 0, 0), mask=differing)
    return faded


def _save(image: Picture, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def _size(image: Picture) -> str:
    return "x".join(map(str, image.size))
