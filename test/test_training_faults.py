"""What goes wrong before and during a training run: one line, and nothing lost."""

import csv
import errno
import os
import resource
import signal
import sys

import numpy as np
import pytest
import torch
from training_runs import take_steps

from iov_restore_ros.pictures import files
from iov_restore_ros.pictures.cache import FORK, Cache
from iov_restore_ros.pictures.picture import Picture
from iov_restore_ros.pictures.write import write_picture
from iov_restore_ros.training import logs
from iov_restore_ros.training.batches import Batches
from iov_restore_ros.training.config import read_config
from iov_restore_ros.training.logs import Logs, Table
from iov_restore_ros.training.train import main, run
from iov_restore_ros.whole import whole, write_whole


@pytest.fixture
def settings(pictures, tmp_path):
    """Return the settings of a run of two steps."""
    return [
        'task=derain', f'data.root={pictures}', f'output={tmp_path / "run"}', 'data.crop=32',
        'batch=1', 'stages=[{steps: 2}]', 'losses={charbonnier: 1.0}', 'save_every=1',
        'device=cpu', 'precision=float32',
    ]


def complaint(capsys, monkeypatch, *settings):
    """Return the one line with which a command of these settings ends."""
    monkeypatch.setattr(sys, 'argv', ['train', *settings])
    assert main() == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize('change', [
    'batch=0', 'save_every=0', 'accumulate=0', 'threads=-1', 'seed=-1', 'ema=1.5',
    'max_gradient=0', 'rate.start=0', 'rate.end=.nan', 'rate.warm_up=-1', 'data.crop=0',
    'data.workers=-1', 'data.cache_gb=-1', 'data.clean=2', 'data.shaken=.nan',
    'adversarial.weight=-1', 'losses.charbonnier=-1',
])
def test_numbers_beyond_their_limits_are_named(settings, tmp_path, capsys, monkeypatch, change):
    name = change.partition('=')[0].replace('losses.', 'losses={')
    assert complaint(capsys, monkeypatch, *settings, change).startswith(f'error: {name}')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('change', 'expected'), [
    ('stages=[{steps: -1}]', 'stages: {epochs: 0, steps: -1}: below 0'),
    ('stages=[{epochs: -3}]', 'stages: {epochs: -3, steps: 0}: below 0'),
    ('losses={charbonnier: 0}', 'losses: none has a weight'),
    ('losses={charbonnier', 'while parsing a flow mapping'),
    ('data.color=red', "Key 'color' not in 'DataConfig'"),
])
def test_settings_that_make_no_sense_end_with_one_line(
    settings, capsys, monkeypatch, change, expected
):
    assert expected in complaint(capsys, monkeypatch, *settings, change)


@pytest.mark.parametrize(('text', 'expected'), [
    ('- 1\n', 'a list, looked for settings'), ('a: [1\n', 'while parsing'), ('word', "Key 'word'"),
])
def test_files_that_are_no_settings_end_with_one_line(
    settings, tmp_path, capsys, monkeypatch, text, expected
):
    path = tmp_path / 'a.yaml'
    path.write_text(text)
    assert expected in complaint(capsys, monkeypatch, str(path), *settings)


def test_checkpoints_that_cannot_be_gone_on_from(settings, tmp_path, capsys, monkeypatch):
    take_steps(read_config(settings), 1)
    path = tmp_path / 'run' / 'checkpoint.pt'
    good = path.read_bytes()
    for share in (0.0, 0.3, 0.99):
        path.write_bytes(good[: int(share * len(good))])
        line = complaint(capsys, monkeypatch, *settings)
        assert line.startswith(f'error: {path}: cut off') and 'start_from=' in line
    torch.save({'step': 3}, path)
    assert f'{path}: no checkpoint' in complaint(capsys, monkeypatch, *settings)
    path.write_bytes(good)
    for change, expected in (
        (['adversarial.weight=1', 'data.crop=256'], 'trained without a discriminator'),
        (['task=deblur'], 'fast for derain, not fast for deblur'),
        (['preset=wei2021'], 'fast for derain, not wei2021 for derain'),
    ):
        line = complaint(capsys, monkeypatch, *settings, *change)
        assert line.startswith(f'error: {path}: {expected}') and 'another output=' in line
    assert path.read_bytes() == good
    take_steps(read_config(settings), 2)


def pairs_of(root, picture, names):
    for folder in ('input', 'gt'):
        (root / folder).mkdir(parents=True)
        for name in names:
            write_picture(root / folder / f'{name}.png', Picture(picture))
    return root


def test_unreadable_validation_pictures_are_named_at_the_start(
    settings, tmp_path, crop, capsys, monkeypatch
):
    """One of them ended a run at its first checkpoint."""
    root = pairs_of(tmp_path / 'pairs', crop, 'abcd')
    (root / 'input' / 'a.png').write_bytes(b'nothing')
    data = (root / 'gt' / 'b.png').read_bytes()
    (root / 'gt' / 'b.png').write_bytes(data[: len(data) // 2])
    write_picture(root / 'input' / 'c.png', Picture(crop[::-1]))
    run(read_config([*settings, f'data.validation={root}']))
    said = ''.join(capsys.readouterr().err.split())
    for name in ('input/a.png', 'gt/b.png'):
        assert f'{root}/{name}' in said and said.index(name) < said.index('step0of2')
    with (tmp_path / 'run' / 'log.csv').open() as file:
        assert [float(row['PSNR']) > 5 for row in csv.DictReader(file)] == [True, True]
    for name in 'abcd':
        (root / 'input' / f'{name}.png').write_bytes(b'nothing')
    monkeypatch.setattr(sys, 'argv', [
        'train', *settings, f'data.validation={root}', f'output={tmp_path / "new"}'
    ])
    assert main() == 2
    assert f'error: {root}: none of its pairs can be read' in capsys.readouterr().err


def test_a_validation_picture_that_goes_away_does_not_end_the_run(
    settings, tmp_path, crop, monkeypatch
):
    root = pairs_of(tmp_path / 'pairs', crop, 'ab')
    def go_away(_):
        for path in root.glob('gt/*'):
            path.unlink()

    monkeypatch.setattr(Logs, 'draw', go_away)  # after the first checkpoint
    run(read_config([*settings, f'data.validation={root}']))
    with (tmp_path / 'run' / 'log.csv').open() as file:
        assert [bool(row['PSNR']) for row in csv.DictReader(file)] == [True, False]


def test_rows_are_appended(tmp_path, monkeypatch):
    table = Table(tmp_path / 'log.csv', 0)
    replaced = []
    monkeypatch.setattr(
        logs, 'write_whole', lambda *given: replaced.append(1) or write_whole(*given)
    )
    for step in range(1, 50):
        table.append({'step': str(step), 'loss': '1'} | ({'PSNR': '30'} if step % 7 == 0 else {}))
    assert len(replaced) == 2, 'at first, and where the column PSNR came'
    rows = table.rows()
    assert [row['step'] for row in rows] == [str(step) for step in range(1, 50)]
    assert rows[0] == {'step': '1', 'loss': '1', 'PSNR': ''} and rows[6]['PSNR'] == '30'
    assert Table(tmp_path / 'log.csv', 9).rows() == rows[:9], 'later ones come again'


@pytest.mark.parametrize('torn', ['3,0.', '3', '3,0.5\0\0\0\n', '\0\0\0\0', '3,0.5,7\n'])
def test_what_is_left_of_a_row_is_taken_out(tmp_path, torn):
    path = tmp_path / 'log.csv'
    path.write_text('step,loss\n1,0.5\n2,0.4\n' + torn)
    table = Table(path, 5)
    table.append({'step': '3', 'loss': '0.3'})
    assert path.read_text() == 'step,loss\n1,0.5\n2,0.4\n3,0.3\n'


def test_a_foreign_file_is_not_taken_for_the_log(tmp_path):
    (tmp_path / 'log.csv').write_text('name,age\nanne,3\n')
    with pytest.raises(ValueError, match=r'log\.csv: not the log of a run'):
        Table(tmp_path / 'log.csv', 5)
    assert (tmp_path / 'log.csv').read_text() == 'name,age\nanne,3\n'


def test_a_row_that_does_not_fit_on_the_disk_leaves_the_others(tmp_path):
    """A limit on the size of files stands for a full disk: the last bytes of a row don't fit."""
    path = tmp_path / 'log.csv'
    path.write_text('step,loss\n1,0.5\n')
    table = Table(path, 5)
    size = path.stat().st_size
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3, size + 3))
        try:
            table.append({'step': '2', 'loss': '0.4'})
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.ENOSPC
    assert path.read_text() == 'step,loss\n1,0.5\n'


def test_a_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / 'below' / 'a.txt'
    write_whole(target, 'old')
    with pytest.raises(KeyError), whole(target) as part:
        part.write_text('new')
        assert part.suffix == '.txt'
        raise KeyError
    assert target.read_text() == 'old' and list(target.parent.iterdir()) == [target]
    write_whole(target, b'new')
    assert target.read_text() == 'new'


def test_forks_share_what_they_keep():
    """Each worker had a cache of its own: cache_gb was multiplied by their number."""
    cache = Cache(4, 30)
    arrays = {n: np.full((1, 2, 5), n, np.uint8) for n in range(4)}
    for number in range(3):
        process = FORK.Process(target=cache.keep, args=(number, arrays[number]))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert all(np.array_equal(cache.get(n), arrays[n]) for n in range(3))
    cache.keep(3, arrays[3])
    assert cache.get(3) is None, 'there is no more room'
    cache.keep(0, arrays[3])
    assert np.array_equal(cache.get(0), arrays[0])
    assert Cache(1, 0).get(0) is None


def test_workers_of_a_training_read_a_picture_once(settings, pictures, tmp_path, monkeypatch):
    read = tmp_path / 'read'
    plain = files.read_picture

    def noted(path):
        with read.open('a') as file:
            file.write(f'{path.name}\n')
        return plain(path)

    monkeypatch.setattr(files, 'read_picture', noted)
    config = read_config([*settings, 'data.workers=2'])
    batches = Batches(config, torch.device('cpu'))
    list(batches.read(range(8)))
    list(batches.read(range(8)))  # other workers, as for the samples
    assert len(read.read_text().split()) <= 2 * 2, 'at most both workers at the same moment'
