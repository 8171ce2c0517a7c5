"""The pages of `evaluate --report` and `make demo` in a real browser: both are made by `page`."""

import io
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from iov_restore_ros.evaluation.report_page import Loop, Slider, Table, data_url, loop_url, page

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium: apt install chromium')
BOXES = ''.join(
    f'<svg class="boxes {side}" viewBox="0 0 100 100" preserveAspectRatio="none">'
    f'<path class="{kind}" d="M10 20H90V80H10z"/></svg>'
    for side, kind in (('before', 'missed'), ('after', 'found'), ('sharp', 'found'))
)
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2 level AA
COLUMNS = 'scene', 'mode', 'past', 'task', 'in', 'restored', 'fps', 'p50', 'p99', 'PSNR', 'flicker'


@pytest.fixture(scope='module')
def file(tmp_path_factory, street):
    """A page with all that there is: a wide table, two sliders of which one has more, a loop."""
    blurred = cv2.GaussianBlur(street, (0, 0), 4)
    both = [np.hstack([np.roll(p, 40 * n, 1) for p in (blurred, street)]) for n in range(3)]
    before, after, grey = data_url(blurred), data_url(street), data_url(np.full_like(street, 128))
    path = tmp_path_factory.mktemp('page') / 'report.html'
    path.write_text(page(
        [Table('What was measured', COLUMNS, [('a street with a long name', *'0123456789')])],
        [
            Slider('city', '20 -> 30', before, after, grey, BOXES),
            Slider('park', '21 -> 31', before, after),
        ],
        [('model', 'fast'), ('command', 'evaluate ' + 'a-word-without-end' * 20)],
        [Loop('drive', '', loop_url(both, 10), data_url(both[0]))],
    ), encoding='utf-8')
    return path.as_uri()


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, file):
    """Open the page in a new window; whatever it complains about or asks for fails the test."""
    said, windows = [], []

    def open_page(**window):
        windows.append(browser.new_context(**window))
        tab = windows[-1].new_page()
        tab.on('console', lambda message: said.append(message.text))
        tab.on('pageerror', lambda error: said.append(str(error)))
        tab.on('request', lambda request: said.append(request.url))
        tab.goto(file)
        return tab

    yield open_page
    for window in windows:
        window.close()
    assert [text for text in said if text != file and not text.startswith('data:')] == []


def seen(element):
    """Return what the browser shows of an element, float32 H x W x 3."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert('RGB'), np.float32)


def shown(tab, name='city'):
    """Return how many percent of a picture are the input, as it is drawn."""
    stage = tab.get_by_role('figure', name=name).locator('.stage')
    return float(stage.evaluate('e => getComputedStyle(e).getPropertyValue("--at")').rstrip('%'))


@pytest.mark.parametrize('width', (320, 1600))
def test_nothing_is_wider_than_the_window(visit, width):
    tab = visit(viewport={'width': width, 'height': 800})
    assert tab.evaluate('document.documentElement.scrollWidth') <= width
    for element in tab.locator('figure, .scroll, dd').all():
        box = element.bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= width


def test_a_table_that_is_too_wide_scrolls_by_keyboard(visit):
    tab = visit(viewport={'width': 320, 'height': 800})
    table = tab.get_by_role('region', name='What was measured')
    tab.keyboard.press('Tab')
    tab.keyboard.press('ArrowRight')
    tab.wait_for_function('document.querySelector(".scroll").scrollLeft > 0')
    assert table.evaluate('e => e === document.activeElement')


def test_slider_follows_the_mouse(visit, street):
    tab = visit(viewport={'width': 1600, 'height': 1200})
    slider = tab.get_by_role('slider', name='city')
    box = slider.bounding_box()
    middle = box['y'] + box['height'] / 2
    tab.mouse.move(box['x'] + box['width'] / 2, middle)
    tab.mouse.down()
    tab.mouse.move(box['x'] + box['width'] - 1, middle, steps=4)
    assert shown(tab) > 95
    blurred = seen(slider)
    tab.mouse.move(box['x'] + 1, middle, steps=4)
    tab.mouse.up()
    assert shown(tab) < 5
    assert np.abs(seen(slider) - blurred).mean() > 2, 'before and after look the same'
    assert shown(tab, 'park') == 50, 'the other one stays'


def test_slider_follows_the_keyboard(visit):
    tab = visit()
    tab.get_by_role('slider', name='city').focus()
    tab.keyboard.press('ArrowRight')
    assert 50 < shown(tab) < 60
    tab.keyboard.press('Home')
    assert shown(tab) == 0


def test_slider_follows_a_finger(visit):
    tab = visit(viewport={'width': 400, 'height': 800}, has_touch=True, is_mobile=True)
    slider = tab.get_by_role('slider', name='city')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    touch = tab.context.new_cdp_session(tab)

    def send(kind, *shares):
        points = [
            {'x': box['x'] + share * box['width'], 'y': box['y'] + box['height'] / 2}
            for share in shares
        ]
        touch.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': points})

    send('touchStart', 0.5)
    for share in (0.6, 0.7, 0.8, 0.9):
        send('touchMove', share)
    send('touchEnd')
    assert 80 < shown(tab) < 100


def test_the_sharp_picture_can_be_looked_at(visit):
    tab = visit()
    figure = tab.get_by_role('figure', name='city')
    tab.get_by_role('slider', name='city').press('Home')
    figure.get_by_role('checkbox').check()
    tab.get_by_role('checkbox', name='boxes').uncheck()
    inner = seen(figure.locator('.stage'))[60:-60, 60:-60]
    assert np.abs(inner - 128).max() < 5
    assert not tab.get_by_role('figure', name='park').get_by_role('checkbox').count()


def test_boxes_lie_on_their_side_of_the_slider_and_can_be_switched_off(visit):
    tab = visit(viewport={'width': 1600, 'height': 1200})
    stage = tab.get_by_role('figure', name='city').locator('.stage')
    slider = tab.get_by_role('slider', name='city')
    colours = {}
    for key in ('Home', 'End'):
        slider.press(key)
        slider.evaluate('e => e.blur()')
        shown = seen(stage)
        tab.get_by_role('checkbox', name='boxes').uncheck()
        drawn = np.abs(seen(stage) - shown).max(-1) > 60
        tab.get_by_role('checkbox', name='boxes').check()
        height, width = drawn.shape
        assert drawn[:, int(0.1 * width) - 2 : int(0.1 * width) + 3].any(), 'its left edge'
        assert not drawn[: int(0.15 * height)].any() and not drawn[int(0.85 * height) :].any()
        colours[key] = shown[drawn].mean(0)
    assert colours['Home'].argmax() == 1, 'restored: found, green'
    assert colours['End'].argmax() == 0, 'input: missed, red'


def test_loops_play_and_pause(visit):
    tab = visit()
    figure = tab.get_by_role('figure', name='drive')
    assert moves(tab, figure.locator('.stage'))
    figure.get_by_role('checkbox', name='pause').check()
    assert not moves(tab, figure.locator('.stage'))


def test_loops_stand_still_for_those_who_want_that(visit):
    tab = visit(reduced_motion='reduce')
    assert not moves(tab, tab.get_by_role('figure', name='drive').locator('.stage'))


def moves(tab, element):
    """Tell whether an element looks different within a second."""
    first = seen(element)
    for _ in range(10):
        tab.wait_for_timeout(100)
        if np.abs(seen(element) - first).mean() > 2:
            return True
    return False


@pytest.mark.parametrize('scheme', ('light', 'dark'))
def test_text_can_be_read(visit, scheme):
    tab = visit(color_scheme=scheme)
    for place in ('h1', 'dt', 'dd', 'th', 'td', '.note', 'figcaption', 'figcaption span', 'label'):
        text, ground = (rgb(tab, place, part) for part in ('color', 'background'))
        assert contrast(text, ground) >= LEAST_CONTRAST, place
    assert (rgb(tab, 'h1', 'background').mean() > 128) == (scheme == 'light')


def rgb(tab, place, part):
    """Return the colour of an element's text, or what it stands on, 0..255."""
    colour = tab.locator(place).first.evaluate("""(element, part) => {
        if (part === 'color') return getComputedStyle(element).color;
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
        }
    }""", part)
    return np.array([float(n) for n in colour[colour.index('(') + 1 : -1].split(',')][:3])


def contrast(one, other):
    """Return the contrast of two colours as WCAG 2.2 defines it, 1..21."""
    def luminance(colour):
        share = colour / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_screen_reader_can_name_everything(visit):
    tab = visit()
    tree = tab.locator('body').aria_snapshot()
    for name in ('city, input', 'city, restored', 'park, restored', 'drive, consecutive frames'):
        assert f'img "{name}' in tree
    assert tab.get_by_role('slider', name='park: how much of it is the input').count() == 1
    assert 'columnheader "flicker"' in tree and 'heading "What was measured" [level=2]' in tree
    assert tab.evaluate('[...document.images].every(image => image.alt)')
    assert tab.evaluate('document.documentElement.lang') == 'en'
