"""Gain curves: the sequences are what the axes say, and files are written."""

import re
import sys

import cv2
import pytest

from iov_restore_ros.evaluation import gain_curves
from iov_restore_ros.model import Generator
from iov_restore_ros.model.fusion import ASSUMED_SHUTTER, MOTION_UNIT
from iov_restore_ros.video.shutter_gauge import ShutterGauge


class Nothing(Generator):
    """Restores nothing, and remembers what is known beside each frame; so do its copies."""

    def __init__(self):
        super().__init__('fast')
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, image, evidence=None):
        self.seen.append(evidence)
        return image


@pytest.fixture
def large(photograph):
    """A picture that is large and sharp enough for every blur."""
    return cv2.resize(photograph, (640, 400), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def sharp(tmp_path, large):
    """A folder of it, and of one that is too small."""
    folder = tmp_path / 'sharp'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), large)
    cv2.imwrite(str(folder / 'b.png'), large[:50, :50])
    return folder


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command, short; an error is SystemExit."""
    def run(*arguments):
        monkeypatch.setattr(gain_curves, 'LENGTHS', (4.0, 8.0))
        monkeypatch.setattr(gain_curves, 'STRENGTHS', (0.7,))
        monkeypatch.setattr(gain_curves, 'COVERED', (0.05,))
        monkeypatch.setattr(gain_curves, 'THROUGH', (0.35,))
        monkeypatch.setattr(gain_curves, 'LONG', (-1.0, 0.0, 1.0))
        monkeypatch.setattr(gain_curves, 'SIDE', 128)
        line = ['gain_curves', '--device', 'cpu', *arguments]
        monkeypatch.setattr('sys.argv', list(map(str, line)))
        return gain_curves.main()
    return run


def test_blur_is_as_long_as_the_axis_says(monkeypatch, large):
    monkeypatch.setattr(gain_curves, 'LENGTHS', (8.0, 16.0))
    monkeypatch.setattr(ShutterGauge, 'share', lambda _: 0.0)  # or it is found
    nothing = Nothing()
    curves = gain_curves.blur_curves([large], nothing, 0.5, 3)
    assert all(gains == [0, 0] for gains in curves.gains.values())
    assert curves.input[0] > curves.input[1] + 1
    # For each length the frame alone, three frames with the shutter unknown, three with it known.
    for number, length in enumerate((8.0, 16.0)):
        alone, first, _, unknown, _, _, known = nothing.seen[7 * number : 7 * number + 7]
        assert alone is None and not first.cues.any()
        motions = []
        for evidence, told in ((unknown, 0), (known, 1)):
            cues = evidence.cues[0, :, 8:-8, 8:-8]
            assert (cues[-2] == told).all()
            motions.append(MOTION_UNIT * float(cues[3:5].flatten(1).median(1).values.norm()))
        assert motions[1] == pytest.approx(length, rel=0.05)
        assert motions[0] == pytest.approx(length * ASSUMED_SHUTTER / 0.5, rel=0.05)


def test_rain_becomes_stronger(monkeypatch, large):
    monkeypatch.setattr(gain_curves, 'STRENGTHS', (0.1, 0.4, 1.0))
    monkeypatch.setattr(gain_curves, 'load_clearer', lambda: None)
    curves = gain_curves.rain_curves([large], Nothing(), 3)
    assert curves.input[0] > curves.input[1] + 3 > curves.input[2] + 6
    assert curves.gains == {'frame alone': [0, 0, 0], 'with past': [0, 0, 0]}


def test_drops_become_more_and_a_veil_thicker(monkeypatch, large):
    monkeypatch.setattr(gain_curves, 'SIDE', 128)
    monkeypatch.setattr(gain_curves, 'load_clearer', lambda: None)
    monkeypatch.setattr(gain_curves, 'COVERED', (0.02, 0.1))
    monkeypatch.setattr(gain_curves, 'THROUGH', (0.8, 0.4))
    nothing = Nothing()
    drops = gain_curves.drop_curves([large], nothing, 3)
    assert drops.input[0] > drops.input[1] + 3
    assert len(nothing.seen) == 2 * (1 + 12), 'the frame alone, and with all before'
    veil = gain_curves.veil_curves([large], Nothing(), 3)
    assert veil.input[0] > veil.input[1] + 6
    for curves in (drops, veil):
        assert curves.gains == {'frame alone': [0, 0], 'with past': [0, 0]}


def test_a_table_is_printed_and_a_plot_is_written(run, sharp, tmp_path, capsys):
    out = tmp_path / 'new' / 'out'
    assert run(sharp, '--output', out, '--seed', 1) == 0  # heavy rain
    plot = cv2.imread(str(out / 'gain_curves.png'))
    assert plot is not None and min(plot.shape[:2]) > 300 and plot.std() > 5
    text = (out / 'gain_curves.md').read_text(encoding='utf-8')
    assert text.strip() == capsys.readouterr().out.strip()
    blur_rows = re.findall(r'^\| [48] \| \d+\.\d\d( \| [+-]\d+\.\d\d){3} \|$', text, re.M)
    assert len(blur_rows) == 2
    [gains] = re.findall(r'^\| 0.7 \| \d+\.\d\d \| (.*?) \| (.*?) \|$', text, re.M)
    assert all(float(gain) > 0 for gain in gains), 'the shipped weights take rain off'
    assert all(re.search(rf'^\| {x} \| \d', text, re.M) for x in (0.05, 0.35)), 'drops, veil'
    assert 'means of 1 pictures' in text, 'the small one is left out'


def test_without_matplotlib_the_extra_is_named(run, sharp, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(SystemExit):
        run(sharp, '--output', tmp_path / 'out')
    assert "pip install '.[plots]'" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists(), 'before anything is measured'


def small_only(sharp):
    (sharp / 'a.png').unlink()
    return [sharp], r'none of the pictures has 168x128 pixels: give larger ones'


@pytest.mark.parametrize('fault', [
    small_only,
    lambda sharp: ([sharp / 'nowhere'], 'nowhere: not a folder'),
    lambda sharp: ([sharp.parent], 'gain_curves.md would overwrite .*, or lie in it'),
    lambda sharp: ([sharp, '--limit', 0], '--limit must be at least 1'),
    lambda sharp: ([sharp, '--shutter', 0], '--shutter must be a share, above 0'),
    lambda sharp: ([sharp, '--derain-weights', sharp / 'a.png'], 'not a readable safetensors'),
])
def test_a_fault_ends_with_one_line_that_names_it(fault, run, sharp, tmp_path, capsys):
    arguments, reason = fault(sharp)
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, '--output', tmp_path)
    assert stopped.value.code == 2
    assert re.search(reason, capsys.readouterr().err.splitlines()[-1])
