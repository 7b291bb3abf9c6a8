"""The page in headless Chromium: what it shows for a position is that position's row."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from nl_detectron_attention import attention_page, page, queries
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from small_models import predictor

from nl_detectron import model_zoo
from nl_detectron.inspect import Observation, observe

pytestmark = pytest.mark.slow  # a browser

FLAGS = (
    "--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --window-size=1200,1000 "
    "--force-device-scale-factor=1"
)
POINTS = [(0.13, 0.21), (0.5, 0.52), (0.88, 0.7)]  # of the image, as shares of its width and height


def look(config: str, image: np.ndarray, *options: object) -> Observation:
    """What an untrained light model sees in an image, with features large enough for distinct maps."""
    cfg = model_zoo.get_config(f"quick_schedules/{config}")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0])
    cfg.merge_from_list(["TEST.DETECTIONS_PER_IMAGE", 3, "MODEL.RPN.POST_NMS_TOPK_TEST", 20, *options])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    return observe(predictor(model, ResizeShortestEdge(192, 640)), image)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("needs chromium and chromedriver (Debian's packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Callable[..., webdriver.Chrome]]:
    def open_page(
        seen: Observation,
        title: str = "a photo",
        classes: tuple[str, ...] = (),
        opening: queries.Query | None = None,
        let_go: bool = True,
    ) -> webdriver.Chrome:
        (tmp_path / "page.html").write_text(attention_page(seen, title, classes, opening), encoding="utf-8")
        browser.get((tmp_path / "page.html").as_uri())
        if let_go:
            browser.find_element(By.ID, "view").send_keys(Keys.ESCAPE)
        return browser

    yield open_page
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []  # nor was there anything that could not be loaded


def point(browser: webdriver.Chrome, x: float, y: float, *, click: bool = False) -> str:
    """Move to a point, given as shares of the image's sides; what the page then says."""
    view = browser.find_element(By.ID, "view")
    width, height = view.size["width"], view.size["height"]
    actions = ActionChains(browser)
    actions.move_to_element_with_offset(view, round((x - 0.5) * width), round((y - 0.5) * height))
    (actions.click() if click else actions).perform()
    return said(browser)


def said(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "readout").text


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "concatenation"])
def test_a_position_shows_its_row(pairwise: str, photo: np.ndarray, opened: Callable) -> None:
    seen = look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo, "MODEL.NON_LOCAL.PAIRWISE", pairwise)
    browser, (field,) = opened(seen), seen.fields
    for share in POINTS:
        told = point(browser, *share)
        x, y = map(float, re.search(r"Position \(([\d.]+), ([\d.]+)\)", told).groups())
        weights = field.rows([field.grid.position_at(x, y)])[0]
        largest = weights.flat[np.abs(weights).argmax()]
        value, left, top = re.search(r"weight (-?[\d.e-]+) around \(([\d.]+), ([\d.]+)\)", told).groups()
        assert float(value) == pytest.approx(largest, rel=0.006)
        # The position named is one of those which rounding to a byte cannot tell from the largest.
        painted = field.grid.paint(weights, *photo.shape[:2])[int(float(top)), int(float(left))]
        assert painted == pytest.approx(largest, rel=0.01)


def test_the_strongest_position_has_the_strongest_colour(photo: np.ndarray, opened: Callable) -> None:
    seen = look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo)
    (field,) = seen.fields
    with torch.no_grad():  # one position that all attend to
        field.x[0, :, 2:4, 4:6] = 40 * field.block.phi.weight[0].flatten().view(-1, 1, 1)
    browser = opened(seen)
    browser.find_element(By.ID, "arrows").click()
    browser.find_element(By.ID, "boxes").click()
    script = "document.getElementById('heat').value = 100; draw();"
    browser.execute_script(script)
    weights = field.rows([field.grid.position_at(5, 5)])[0]
    point(browser, 5 / photo.shape[1], 5 / photo.shape[0])
    colours = {}
    for name, j in (("strongest", weights.argmax()), ("weakest", weights.argmin())):
        x, y = field.grid.pooled_centre(int(j))
        script = """const [x, y] = [...arguments].map(side => Math.round(side * view.width / content.width));
            return [...pen.getImageData(x, y, 1, 1).data]"""
        colours[name] = browser.execute_script(script, x, y)[:3]
    assert colours["strongest"] == page._colours("YlOrRd")[255]
    assert min(colours["weakest"]) > 100  # pale


def test_click_holds_and_keys_step(photo: np.ndarray, opened: Callable) -> None:
    browser = opened(look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo))
    assert said(browser) == "No position chosen."
    held = point(browser, *POINTS[0], click=True)
    assert point(browser, *POINTS[2]) == held
    row, column = map(int, re.search(r"row (\d+), column (\d+)", held).groups())
    view = browser.find_element(By.ID, "view")
    view.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert f"row {row + 1}, column {column + 1}." in said(browser)
    assert browser.find_element(By.ID, "high").text
    view.send_keys(Keys.ESCAPE)
    assert said(browser) == "No position chosen."
    assert not browser.find_element(By.ID, "high").text
    assert point(browser, *POINTS[2]).startswith("Position")
    assert point(browser, *POINTS[1], click=True) != point(browser, *POINTS[2], click=True)  # another one
    point(browser, *POINTS[2], click=True)  # let go
    assert point(browser, *POINTS[0]) != point(browser, *POINTS[2])


def test_blocks_of_a_keypoint_head(photo: np.ndarray, opened: Callable) -> None:
    seen = look("keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml", photo)
    browser = opened(seen, classes=("person",))
    choice = Select(browser.find_element(By.ID, "block"))
    names = list(dict.fromkeys(field.name for field in seen.fields))
    assert [option.get_attribute("value") for option in choice.options] == names
    assert len(names) == 4
    field = seen.fields[-1]
    alike = [other.query_dependence for other in seen.fields if other.name == field.name]
    text = f"keypoint_head.non_local_8 - query dependence {np.mean(alike):.2f}, changes x by 0.0 %"
    choice.select_by_visible_text(text)
    about = browser.find_element(By.ID, "about").text
    assert about.startswith("This block changes x by 0.0 %: its map says little.")
    x, y = field.grid.left + 2.5 * field.grid.width, field.grid.top + 7.5 * field.grid.height
    told = point(browser, x / photo.shape[1], y / photo.shape[0])
    assert "if alike for all 49" in told  # 14 x 14, pooled to 7 x 7
    assert len(browser.execute_script("return content.detections")) == 3


def test_a_flat_map_has_a_strongest_position_and_no_arrows(photo: np.ndarray, opened: Callable) -> None:
    """A byte knows only that all weights are the same."""
    seen = look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo)
    (field,) = seen.fields
    torch.nn.init.normal_(field.block.theta.weight, std=1e-6)
    torch.nn.init.zeros_(field.block.theta.bias)
    weights = field.rows([0])[0].flatten()
    assert weights.max() < 1.003 * weights.min()
    browser = opened(seen)
    point(browser, 0.01, 0.01)
    drawn = browser.execute_script("return [...weightsOf(query).strongest]")
    assert drawn == np.argsort(-weights, kind="stable")[:20].tolist()
    assert browser.execute_script("return weightsOf(query).outstanding") == 0
    assert "No position stands out." in said(browser)


def test_it_opens_with_what_was_asked_for(photo: np.ndarray, opened: Callable) -> None:
    seen = look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo)
    height, width = photo.shape[:2]
    middle = said(opened(seen, let_go=False))
    assert f"Position ({width / 2:.1f}, {height / 2:.1f})" in middle
    (query,) = queries.at_point(seen, 30, 40)
    browser = opened(seen, opening=query, let_go=False)
    assert "Position (30.5, 40.5)" in said(browser)
    assert point(browser, *POINTS[2]) == said(browser)  # held
    assert "is held" in browser.find_element(By.ID, "hint").text


def test_it_opens_with_the_region_that_was_asked_for(photo: np.ndarray, opened: Callable) -> None:
    """Of two at the same place, in a block that is not the first."""
    seen = look("keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml", photo)
    field = seen.fields[-2]
    seen.fields[-1] = replace(seen.fields[-1], grid=field.grid)
    x, y = field.grid.left + 3.5 * field.grid.width, field.grid.top + 5.5 * field.grid.height
    browser = opened(seen, opening=queries.Query("", "", x, y, field), let_go=False)
    assert browser.execute_script("return content.fields.indexOf(query.field)") == len(seen.fields) - 2
    assert browser.find_element(By.ID, "block").get_attribute("value") == field.name
    assert "row 5, column 3" in said(browser)
    seen.fields[:] = [replace(field, grid=replace(field.grid, left=photo.shape[1] - 20))]  # not in the middle
    assert "row 7, column 7" in said(opened(seen, let_go=False))


@pytest.mark.parametrize(("width", "height", "ratio"), [(1280, 800, 1), (390, 800, 3), (1920, 1080, 1)])
@pytest.mark.parametrize("shape", [(60, 80), (1500, 2000), (900, 150)])
def test_the_picture_fits_any_window(
    shape: tuple[int, int], width: int, height: int, ratio: int, photo: np.ndarray, opened: Callable
) -> None:
    image = cv2.resize(photo, shape[::-1])
    browser = opened(Observation(image, None, []))
    metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        settled = "return innerWidth === arguments[0] && devicePixelRatio === arguments[1]"
        WebDriverWait(browser, 10).until(lambda page: page.execute_script(settled, width, ratio))
        # The emulation may change the size first, and then the ratio without the event that a zoom has.
        browser.execute_script("dispatchEvent(new Event('resize'))")
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        script = """const frame = view.getBoundingClientRect(), place = view.parentElement;
            const page = document.documentElement;
            return [frame.width, frame.height, view.width, place.clientWidth, place.clientHeight,
                page.scrollWidth, page.scrollHeight]"""
        across, down, pixels, place_across, place_down, *needed = browser.execute_script(script)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert needed == [width, height]  # nothing to scroll
    assert place_across * place_down > 0.5 * width * height
    assert across > 0.9 * width or down > 0.65 * height
    assert 0.99 < max(across / place_across, down / place_down) <= 1
    assert across / down == pytest.approx(shape[1] / shape[0], rel=0.02)
    assert pixels == pytest.approx(across * ratio, abs=1)


def test_labels_neither_overlap_nor_leave_the_picture(photo: np.ndarray, opened: Callable) -> None:
    """Twelve detections at one place, and one in each corner."""
    height, width = photo.shape[:2]
    corners = [(left, top, left + 9, top + 9) for left in (0, width - 9) for top in (0, height - 9)]
    found = Instances((height, width))
    found.pred_boxes = Boxes(torch.tensor([(40, 50, 90, 100)] * 12 + corners, dtype=torch.float32))
    found.scores, found.pred_classes = torch.linspace(1, 0.5, 16), torch.zeros(16, dtype=torch.long)
    browser = opened(Observation(photo, found, []), classes=("a sea cucumber",))
    labels = browser.execute_script("return labelPlaces()")
    assert [label["k"] for label in labels] == list(range(16))
    for label in labels:
        assert 0 <= label["left"] <= width - label["width"]
        assert 0 <= label["top"] <= height - label["height"]
    for one, other in itertools.combinations(labels, 2):
        beside = one["left"] + one["width"] <= other["left"] or other["left"] + other["width"] <= one["left"]
        assert beside or abs(one["top"] - other["top"]) > 0.999 * one["height"]


def test_nothing_detected(photo: np.ndarray, opened: Callable) -> None:
    config = "keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
    browser = opened(look(config, photo, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0))
    assert point(browser, 0.5, 0.5) == "No detection went through this block."


def test_a_large_map_has_every_so_many_positions(
    photo: np.ndarray, opened: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAP_BYTES", 2000)
    seen = look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo)
    (field,) = seen.fields
    browser = opened(seen)
    told = point(browser, 0.5, 0.52)
    step = int(re.search(r"1 in (\d+) along each side has a map", told).group(1))
    row, column = map(int, re.search(r"row (\d+), column (\d+)", told).groups())
    asked = [
        min((at // step) * step + step // 2, side - 1)
        for at, side in zip((row, column), field.x.shape[2:], strict=True)
    ]
    weights = field.rows([asked[0] * field.grid.columns + asked[1]])
    value = float(re.search(r"weight ([\d.e-]+) around", told).group(1))
    assert value == pytest.approx(weights.max(), rel=0.006)


def test_it_needs_nothing_but_itself(photo: np.ndarray, opened: Callable) -> None:
    title = "</script><script>alert(1)</script><!-- & \u2028 \u00e9.jpg"
    seen = look("mask_rcnn_R_18_FPN_nl_shapes.yaml", photo)
    browser = opened(seen, title)
    assert browser.title == title
    assert "alert" in browser.find_element(By.ID, "title").text
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert all(name.startswith("data:") for name in loaded)
    assert "http" not in Path(page.__file__).with_name("page.html").read_text()
