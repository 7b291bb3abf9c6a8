"""The page in headless Chromium: what it shows for a position is that position's row."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from nl_detectron_attention import attention_page, page
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
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
        seen: Observation, title: str = "a photo", classes: tuple[str, ...] = ()
    ) -> webdriver.Chrome:
        (tmp_path / "page.html").write_text(attention_page(seen, title, classes), encoding="utf-8")
        browser.get((tmp_path / "page.html").as_uri())
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
    point(browser, *POINTS[1], click=True)
    assert point(browser, *POINTS[1], click=True).startswith("Position")  # let go
    assert point(browser, *POINTS[0]) != point(browser, *POINTS[2])


def test_blocks_of_a_keypoint_head(photo: np.ndarray, opened: Callable) -> None:
    seen = look("keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml", photo)
    browser = opened(seen, classes=("person",))
    choice = Select(browser.find_element(By.ID, "block"))
    names = list(dict.fromkeys(field.name for field in seen.fields))
    assert [option.text for option in choice.options] == names
    assert len(names) == 4
    field = seen.fields[-1]
    choice.select_by_visible_text(field.name)
    x, y = field.grid.left + 2.5 * field.grid.width, field.grid.top + 7.5 * field.grid.height
    told = point(browser, x / photo.shape[1], y / photo.shape[0])
    assert "if alike for all 49" in told  # 14 x 14, pooled to 7 x 7
    assert len(browser.execute_script("return content.detections")) == 3


def test_the_arrows_of_a_flat_map_are_those_of_the_strongest(photo: np.ndarray, opened: Callable) -> None:
    """Of which a byte knows only that all are the same."""
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
