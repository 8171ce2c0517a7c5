"""The evaluation command, on trees of small pictures."""

import base64
import csv
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from iov_restore_ros.evaluation import evaluate
from iov_restore_ros.evaluation.metrics import psnr, restore_image, ssim_3d
from iov_restore_ros.evaluation.protocols import PROTOCOLS
from iov_restore_ros.evaluation.report import Result, Score
from iov_restore_ros.evaluation.sources import LAYOUTS, open_root
from iov_restore_ros.model import Generator, WeightsInfo, load_weights, save_weights


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """On pictures as small as these more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Return weights that change a picture a little."""
    path = tmp_path_factory.mktemp('weights') / 'some.safetensors'
    generator = Generator('fast')
    generator.initialise()
    save_weights(path, generator, WeightsInfo('fast', 'deblur', 'photographs', commit='abc'))
    return path


@pytest.fixture
def run(monkeypatch, weights):
    """Return a function that runs the command with these weights; an error is SystemExit."""
    def run(*arguments):
        line = ['evaluate', '--weights', weights, '--device', 'cpu', *arguments]
        monkeypatch.setattr('sys.argv', list(map(str, line)))
        return evaluate.main()
    return run


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


@pytest.fixture
def picture(photograph):
    return np.ascontiguousarray(photograph[60:140, 100:212])


@pytest.fixture
def pairs(tmp_path, picture):
    """Return a folder of two pairs, one of them with a name that HTML must escape."""
    for name, sharp in (('a', picture), ('b&amp', picture[::-1])):
        write(tmp_path / 'pairs' / 'gt' / f'{name}.png', sharp)
        write(tmp_path / 'pairs' / 'input' / f'{name}.png', cv2.blur(sharp, (5, 1)))
    return tmp_path / 'pairs'


def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')


def test_files_hold_what_was_measured(run, pairs, picture, weights, tmp_path):
    out = tmp_path / 'new' / 'out'
    assert run(pairs, pairs / 'gt', '--task', 'deblur', '--output', out) == 0
    with (out / 'results.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['picture'] for row in rows] == ['a', 'b&amp', 'a.png', 'b&amp.png']
    blurred = cv2.blur(picture, (5, 1))
    restored = restore_image(load_weights(weights)[0], blurred, 'cpu')
    assert float(rows[0]['PSNR dB before']) == psnr(blurred, picture)
    assert float(rows[0]['PSNR dB after']) == psnr(restored, picture)
    assert float(rows[0]['SSIM 3-D after']) == ssim_3d(restored, picture)

    summary = json.loads((out / 'results.json').read_text(), parse_constant=refuse)
    mean = (float(rows[0]['PSNR dB after']) + float(rows[1]['PSNR dB after'])) / 2
    paired, clean = summary['results']
    assert paired['measures']['PSNR dB']['after'] == pytest.approx(mean)
    assert (paired['layout'], paired['pictures'], clean['layout']) == ('folders', 2, 'clean')
    assert clean['measures']['PSNR dB']['before'] == 'inf'
    assert clean['measures']['features kept %']['before'] > 90
    assert summary['weights']['deblur']['commit'] == 'abc'
    assert summary['command'].startswith('evaluate --weights')

    lines = (out / 'results.md').read_text().splitlines()
    assert f'inf -> {clean["measures"]["PSNR dB"]["after"]:.2f}' in '\n'.join(lines)
    columns = [line.count('|') for line in lines if line.startswith('|')]
    assert len(columns) == 4 and len(set(columns)) == 1


def test_gopro_stands_in_table_2(run, tmp_path, picture, capsys):
    root = tmp_path / 'GOPRO'
    for number in range(4):
        write(root / 'test' / 'GOPR1' / 'sharp' / f'{number}.png', picture)
        write(root / 'test' / 'GOPR1' / 'blur' / f'{number}.png', cv2.blur(picture, (3, 3)))
    assert run(f'gopro={root}', '--limit', '2', '--output', root) == 0, 'the layout tells the task'
    assert re.findall(r'GOPR1/\d', (root / 'results.csv').read_text()) == ['GOPR1/0', 'GOPR1/2']
    shown = capsys.readouterr().out
    for text in ('GOPRO: RGB, full frame', 'Table 2', 'DeblurGAN', '28.70', '29.19', '0.883'):
        assert text in shown
    assert re.search(r'this run\s+│\s+\d+\.\d\d │\s+0\.\d{4}', shown)
    assert 'this run, SSIM 3-D' in shown and '2 pictures' in shown
    assert 'Table 3' not in shown and 'Table 4' not in shown


def test_realblur_is_measured_aligned(run, tmp_path, picture, capsys):
    write(tmp_path / 'test' / 'target' / 'a.png', picture)
    write(tmp_path / 'test' / 'input' / 'a.png', np.roll(picture, 3, 1))
    assert run(f'realblur_r={tmp_path}', '--output', tmp_path) == 0
    [result] = json.loads((tmp_path / 'results.json').read_text())['results']
    assert psnr(np.roll(picture, 3, 1), picture) < 20 < result['measures']['PSNR dB']['before']
    shown = capsys.readouterr().out
    assert 'ECC-aligned' in shown
    # RealBlur-J was not measured.
    assert re.search(r'this run\s+│\s+- │\s+- │\s+\d+\.\d\d │', shown)


def test_rain_stands_in_table_4_on_y_and_on_rgb(monkeypatch, tmp_path, picture, capsys):
    for root, blur in (('L', 2), ('H', 4)):
        write(tmp_path / root / 'norain-001.png', picture)
        write(tmp_path / root / 'rain-001.png', cv2.blur(picture, (1, blur)))
    monkeypatch.setattr('sys.argv', [
        'evaluate', f'rain100l={tmp_path / "L"}', f'rain100h={tmp_path / "H"}', '--device', 'cpu',
    ])
    assert evaluate.main() == 0, 'with the shipped weights'
    shown = capsys.readouterr().out
    assert '18.30 / 0.476 for Rain100H' in shown
    number = r'\s+(\d+\.\d\d) │\s+0\.\d{4} │'
    y, rgb = (
        [float(value) for value in re.search(
            rf'this run, {name}\s+│\s+- │\s+- │{number}{number}', shown
        ).groups()]
        for name in ('Y', 'RGB')
    )
    assert y[0] > rgb[0] + 1 and y[1] > rgb[1] + 1, 'Y spans only 219 of the 255 steps'


def test_synthetic_pictures_follow_from_seed_and_name(tmp_path, photograph):
    def degraded(seed, name='a.png'):
        root = open_root(str(tmp_path), 'derain', seed)
        return dict(root.pictures)[name]()
    write(tmp_path / 'a.png', photograph)
    first, target = degraded(1)
    assert np.array_equal(target, photograph)
    assert not np.array_equal(first, photograph)
    write(tmp_path / '0.png', photograph)
    assert np.array_equal(degraded(1)[0], first), 'another picture changes nothing'
    assert not np.array_equal(degraded(1, '0.png')[0], first)
    assert not np.array_equal(degraded(2)[0], first)


def test_synthetic_blur_is_measured_on_the_picture_without_its_margin(run, tmp_path, photograph):
    write(tmp_path / 'sharp' / 'a.png', photograph)
    assert run(
        tmp_path / 'sharp', '--task', 'deblur', '--synthetic', '3', '--output', tmp_path
    ) == 0
    [result] = json.loads((tmp_path / 'results.json').read_text())['results']
    assert result['layout'] == 'synthetic'
    assert 10 < result['measures']['PSNR dB']['before'] < 45


def test_a_picture_that_stayed_as_it_was_does_not_hide_the_others():
    result = Result('x', 'clean', 'deblur', [
        Score(name, {'PSNR dB': float('inf')}, {'PSNR dB': value})
        for name, value in (('a', float('inf')), ('b', 50.0), ('c', 52.0))
    ])
    assert result.means() == {'PSNR dB': (float('inf'), 51.0)}


def test_every_layout_has_a_protocol():
    assert LAYOUTS.keys() <= PROTOCOLS.keys()


class Page(HTMLParser):
    """Collects the tags; complains about what is not closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('img', 'input', 'meta'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_report_is_one_page_with_sliders(run, pairs, tmp_path, photograph):
    write(tmp_path / 'clean' / 'wide.png', cv2.resize(photograph, (1200, 100)))
    run(pairs, tmp_path / 'clean', '--task', 'deblur', '--output', tmp_path, '--report')
    page = Page()
    page.feed((tmp_path / 'report.html').read_text(encoding='utf-8'))
    assert not page.open
    images = [attributes for tag, attributes in page.tags if tag == 'img']
    # Input and restored for three pictures, and the sharp one where it is not the input.
    assert len(images) == 3 * 2 + 2
    sizes = set()
    for image in images:
        kind, _, data = image['src'].partition(',')
        assert kind == 'data:image/jpeg;base64'
        sizes.add(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1).shape)
    assert sizes == {(80, 112, 3), (80, 960, 3)}
    assert sum(attributes.get('type') == 'range' for _, attributes in page.tags) == 3
    assert not any({'href', 'srcset'} & attributes.keys() for _, attributes in page.tags)
    assert any('pairs: b&amp' in text for text in page.text), 'escaped, and so read as it is'


def corrupt(pairs):
    (pairs / 'input' / 'a.png').write_bytes(b'nothing')
    return [pairs, '--task', 'deblur'], r'input/a\.png: not a readable picture'


def other_size(pairs):
    write(pairs / 'gt' / 'a.png', np.zeros((30, 40, 3), np.uint8))
    return [pairs, '--task', 'deblur'], r'input/a\.png: 112x80 pixels, but .*gt/a\.png has 40x30'


def tiny(pairs):
    write(pairs / 'tiny' / 'a.png', np.zeros((5, 40, 3), np.uint8))
    return [pairs / 'tiny', '--task', 'deblur'], r'tiny: a\.png: \(5, 40, 3\)'


def too_small_to_degrade(pairs):
    write(pairs / 'tiny' / 'a.png', np.zeros((15, 40, 3), np.uint8))
    return [pairs / 'tiny', '--task', 'deblur', '--synthetic', 1], r'a\.png: .* is too small'


def report_of_somebody_else(pairs):
    (pairs / 'results.csv').write_text('mine')
    return (
        [pairs, '--task', 'deblur', '--output', pairs], 'results.csv exists, and evaluate did'
    )


@pytest.mark.parametrize('fault', [
    corrupt, other_size, tiny, too_small_to_degrade,
    lambda pairs: ([pairs / 'nowhere', '--task', 'deblur'], 'nowhere: not a folder'),
    lambda pairs: ([f'gopr={pairs}'], "unknown layout 'gopr', choose one of gopro"),
    lambda pairs: ([pairs], 'give --task, folders pictures may be for deblur or derain'),
    lambda pairs: ([pairs, '--task', 'derain'], "weights are for 'deblur', not for 'derain'"),
    lambda pairs: ([pairs, '--task', 'deblur', '--report'], '--report needs --output'),
    lambda pairs: ([pairs, '--task', 'deblur', '--limit', 0], '--limit must be at least 1'),
    lambda pairs: (
        [pairs, '--task', 'deblur', '--output', pairs / 'gt' / 'a.png'], 'File exists',
    ),
    report_of_somebody_else,
])
def test_a_fault_ends_with_one_line_that_names_it(fault, run, pairs, capsys):
    arguments, reason = fault(pairs)
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert re.search(reason, capsys.readouterr().err.splitlines()[-1])
