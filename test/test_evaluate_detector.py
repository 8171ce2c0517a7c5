"""`evaluate --detector`, with a small detector that sees bright squares (test/detectors.py)."""

import csv
import json
import re

import cv2
import numpy as np
import pytest
from detectors import BLUE, RED, scene, write_detector

from iov_restore_ros.evaluation import evaluate
from iov_restore_ros.model import Generator, WeightsInfo, save_weights
from iov_restore_ros.tasks import TASKS

NAMES = {0: 'person', 1: 'truck'}
SQUARES = (16, 16, 8, RED), (64, 40, 8, BLUE)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp('detector') / 'small.onnx'
    return write_detector(path, 'ultralytics', names=NAMES)


@pytest.fixture
def unchanging(tmp_path, monkeypatch):
    """Weights of both tasks that leave a picture as it is stand for the shipped ones."""
    paths = {}
    for task in TASKS:
        generator = Generator('fast')
        generator.initialise()
        for parameter in generator.parameters():
            parameter.data.zero_()
        paths[task] = tmp_path / f'{task}.safetensors'
        save_weights(paths[task], generator, WeightsInfo('fast', task))
    monkeypatch.setattr(evaluate, 'shipped_weights', lambda model, task: paths[task])


@pytest.fixture
def run(monkeypatch, detector, unchanging):
    """Return a function that runs the command; an error is SystemExit."""
    def run(*arguments):
        # What this detector looks for is drawn as blobs, which a finder of drops would take off.
        line = [
            'evaluate', '--device', 'cpu', '--detector', detector, '--no-clean-glass', *arguments
        ]
        monkeypatch.setattr('sys.argv', list(map(str, line)))
        return evaluate.main()
    return run


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


@pytest.fixture
def pairs(tmp_path):
    """Two pairs: in the input of one a square is hidden, in that of the other one is invented."""
    for name, squares in (('hidden', SQUARES[:1]), ('invented', (*SQUARES, (80, 8, 8, RED)))):
        write(tmp_path / 'pairs' / 'gt' / f'{name}.png', scene((64, 96), *SQUARES))
        write(tmp_path / 'pairs' / 'input' / f'{name}.png', scene((64, 96), *squares))
    return tmp_path / 'pairs'


@pytest.fixture
def clips(tmp_path):
    """One clip of five pairs, in the input of which the blue square is hidden from frame 3 on."""
    for number in range(5):
        shown = SQUARES if number < 3 else SQUARES[:1]
        write(tmp_path / 'clips' / 'gt' / 'a' / f'{number}.png', scene((64, 96), *SQUARES))
        write(tmp_path / 'clips' / 'input' / 'a' / f'{number}.png', scene((64, 96), *shown))
    return tmp_path / 'clips'


def test_what_is_found_stands_in_the_table_and_in_the_files(run, pairs, tmp_path, capsys):
    assert run(pairs, '--task', 'derain', '--output', tmp_path / 'out') == 0
    with (tmp_path / 'out' / 'results.csv').open(encoding='utf-8') as file:
        hidden, invented = csv.DictReader(file)
    names = [f'{w} {when}' for when in ('before', 'after') for w in ('boxes', 'found', 'wrong')]
    assert [hidden[name] for name in names] == ['2', '1', '0'] * 2
    assert [invented[name] for name in names] == ['2', '2', '1'] * 2
    text = (tmp_path / 'out' / 'results.json').read_text()
    found = json.loads(text)['results'][0]['detector']['restored']
    assert (found['boxes'], found['recall'], found['precision']) == (4, 3 / 4, 3 / 4)
    assert 'small.onnx' in json.loads(text)['detector']['file']
    shown = capsys.readouterr().out
    assert re.search(r'pairs.*│ +4 │ 75\.0 -> 75\.0 │ 75\.0 -> 75\.0', shown)
    assert 'detector: `file: ' in (tmp_path / 'out' / 'results.md').read_text()


def test_sequences_are_judged_each_and_together(run, clips, tmp_path):
    assert run('--video', clips, '--task', 'derain', '--output', tmp_path / 'out') == 0
    [result] = json.loads((tmp_path / 'out' / 'results.json').read_text())['results']
    late, all_frames = (
        result['detector'][part] for part in ('from the third frame on', 'all frames')
    )
    assert list(late) == ['input', 'alone', 'with past']
    assert late['input']['boxes'] == 6 and late['input']['recall'] == pytest.approx(4 / 6)
    assert all_frames['alone']['boxes'] == 10 and all_frames['alone']['recall'] == 0.8
    with (tmp_path / 'out' / 'results.csv').open(encoding='utf-8') as file:
        found = [row['found'] for row in csv.DictReader(file) if row['restored'] == 'input']
    assert found == ['2', '2', '2', '1', '1']


def test_both_tasks_in_one_run_load_the_detector_once(run, pairs, clips, monkeypatch, capsys):
    loaded = []
    open_judge = evaluate.open_judge
    monkeypatch.setattr(
        evaluate, 'open_judge', lambda *given: loaded.append(given) or open_judge(*given)
    )
    assert run(f'derain:{pairs}', f'deblur:folders={pairs}', '--classes', 'person') == 0
    assert len(loaded) == 1
    shown = capsys.readouterr().out
    assert len(re.findall(r'│ derain │ +2 │', shown)) == 1, 'one person in each picture'
    assert len(re.findall(r'│ deblur │ +2 │', shown)) == 1


def test_labels_say_what_is_there(run, pairs, clips, tmp_path, capsys):
    labels = tmp_path / 'labels'
    for name in ('hidden', 'a/0', 'a/4'):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / f'{name}.txt').write_text(f'0 {20 / 96} {20 / 64} {8 / 96} {8 / 64}\n')
    assert run(pairs, '--task', 'derain', '--labels', labels) == 0
    assert re.search(r'│ +1 │ 100\.0 -> 100\.0 │ 25\.0 -> 25\.0 │', capsys.readouterr().out)
    assert run('--video', clips, '--task', 'derain', '--labels', labels) == 0
    assert re.search(r'all frames.*│ +2 │ 100\.0 ->', capsys.readouterr().out.replace('\n', ' '))


def test_where_nothing_is_there_a_line_says_what_would_do(run, tmp_path, capsys):
    write(tmp_path / 'empty' / 'a.png', scene((64, 96)))
    assert run(tmp_path / 'empty', '--task', 'derain') == 0
    shown = ' '.join(capsys.readouterr().out.split())
    assert re.search(r'│ 0 │ - -> - │ - -> - │ - -> - │', shown)
    assert 'empty: a lower --score, other --classes or another detector may find more' in shown


def test_report_shows_what_is_found_and_what_is_missed(run, pairs, tmp_path):
    run(pairs, '--task', 'derain', '--output', tmp_path / 'out', '--report')
    page = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
    hidden, invented = page.split('<figure>')[1:]
    assert '<svg class="boxes before" viewBox="0 0 96 64"' in hidden
    before = re.search(r'<svg class="boxes before".*?</svg>', hidden).group()
    assert '<path class="found" d="M16 16H24V24H16z"/>' in before
    assert '<path class="missed" d="M64 40H72V48H64z"/>' in before and 'wrong' not in before
    assert '<path class="wrong" d="M80 8H88V16H80z"/>' in invented
    assert '1 of 2 found → 1, wrong 0 → 0' in hidden and 'wrong 1 → 1' in invented
    assert page.count('<input type="checkbox" checked>') == 1


@pytest.mark.parametrize(('arguments', 'reason'), [
    (['--score', 0.05], '--score must be 0.1 to 1'),
    (['--classes', 'lorry'], 'has no class lorry; give --classes, of: person, truck'),
    (['--labels', 'nowhere'], r'nowhere: no labels, looked for nowhere/hidden\.txt'),
    (['derain:other', '--labels', 'nowhere'], '--labels is for one ROOT'),
    (['--detector', 'no.onnx'], r'no\.onnx: no such file'),
])
def test_a_fault_ends_with_one_line_that_names_it(run, pairs, arguments, reason, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(f'derain:{pairs}', *arguments)
    assert stopped.value.code == 2
    assert re.search(reason, capsys.readouterr().err.splitlines()[-1])


def test_what_only_a_detector_needs_is_not_taken_without_one(monkeypatch, pairs, capsys):
    for option in (['--score', '0.3'], ['--classes', 'car'], ['--labels', 'nowhere']):
        monkeypatch.setattr('sys.argv', ['evaluate', f'derain:{pairs}', *option])
        with pytest.raises(SystemExit):
            evaluate.main()
        assert 'need --detector' in capsys.readouterr().err


def test_labels_do_not_fit_pictures_that_are_cut(run, pairs, tmp_path, capsys):
    write(tmp_path / 'sharp' / 'a.png', np.zeros((200, 200, 3), np.uint8))
    with pytest.raises(SystemExit):
        run(tmp_path / 'sharp', '--task', 'deblur', '--synthetic', 1, '--labels', tmp_path)
    assert 'removes a margin' in capsys.readouterr().err


def test_a_layout_of_the_other_task_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run('derain:gopro=nowhere')
    assert 'gopro is for deblur, not for derain' in capsys.readouterr().err
