"""
Measure restored pictures against sharp ones, as the literature does.

    python -m iov_restore_ros.evaluation.evaluate gopro=/data/GOPRO rain100h=/data/Rain100H
    python -m iov_restore_ros.evaluation.evaluate my_pairs --task derain --output out --report

A ROOT is a public data set with its layout before it (the test split is used), or a folder with
input/ and gt/ (or target/), or a folder of sharp pictures. Sharp pictures show how much clean
pictures change; with --synthetic they are degraded first. derain:ROOT and deblur:ROOT name the
task, so that one run can have both.

    python -m iov_restore_ros.evaluation.evaluate --video my_clips --task derain
    python -m iov_restore_ros.evaluation.evaluate --video drive.mp4 --task deblur --synthetic 1

With --video each folder of pictures in a ROOT is one sequence, in the order of the numbers. With
--synthetic a ROOT contains videos and folders of sharp frames. Each frame is restored with its
previous frame. For derain the frames are degraded by rain, or by the given --kind (repeatable).

    python -m iov_restore_ros.evaluation.evaluate my_pairs --task derain --detector yolox_nano.onnx

With --detector it also measures what a detector finds: one of YOLOX or Ultralytics as ONNX
(pip install '.[export]'; docs/detection.md).
"""

import argparse
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from iov_restore_ros.compute.device import pick_device
from iov_restore_ros.evaluation.clips import SHORTEST, open_clips
from iov_restore_ros.evaluation.detection import SCORE, Judge, open_judge
from iov_restore_ros.evaluation.detection_report import counts_text, overlay
from iov_restore_ros.evaluation.detector import LEAST, ROAD, DetectorError
from iov_restore_ros.evaluation.metrics import check_size, restore_image
from iov_restore_ros.evaluation.protocols import PROTOCOLS
from iov_restore_ros.evaluation.report import (
    Report,
    Result,
    Score,
    check_replaceable,
    picture_report,
    print_tables,
    write_files,
    write_page,
)
from iov_restore_ros.evaluation.report_page import Slider, data_url
from iov_restore_ros.evaluation.sources import Image, Root, open_root
from iov_restore_ros.evaluation.video import measure_clips, video_report
from iov_restore_ros.evaluation.weather import KINDS
from iov_restore_ros.finder_options import add_finder_options, finder_files
from iov_restore_ros.inference import RestoreError
from iov_restore_ros.model import (
    PRESETS,
    VIDEO,
    Generator,
    WeightsError,
    load_weights,
    shipped_weights,
)
from iov_restore_ros.outputs import OutputError
from iov_restore_ros.pictures.datasets import LAYOUTS
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.clear import Clearer, load_clearer

SLIDERS = 12  # in a report
CLIP = 12  # frames of each clip without --limit
TABLE_WIDTH = 150  # characters, also without a terminal


def measure_pictures(
    root: Root, generator: Generator, device: torch.device, limit: int | None, sliders: int,
    judge: Judge | None = None, clearer: Clearer | None = None,
) -> Result:
    """
    Restore and measure ``limit`` pictures (spread evenly) of ``root``, keep ``sliders``.

    With ``judge`` it also measures detections. ``clearer`` first removes the veil and what is on
    the glass.
    """
    pictures = _spread(root.pictures, limit)
    shown = {name for name, _ in _spread(pictures, sliders)}
    kind = PROTOCOLS[root.layout].measure
    result = Result(str(root.path), root.layout, root.task)
    for name, read in track(pictures, root.path.name, console=Console(stderr=True)):
        degraded, sharp = read()
        check_size(f'{root.path}: {name}', sharp)
        restored = restore_image(generator, degraded, device, clearer)
        found = {}
        if judge is not None:
            truth = judge.truth(name, sharp)
            found = {
                'input': judge.find(degraded, truth), 'restored': judge.find(restored, truth),
            }
        score = Score(name, kind(degraded, sharp), kind(restored, sharp), found)
        result.scores.append(score)
        if name in shown:
            result.sliders.append(_slider(root, score, degraded, restored, sharp, judge))
    return result


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        'evaluate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', nargs='+', metavar='[TASK:][LAYOUT=]ROOT', help=', '.join(LAYOUTS))
    parser.add_argument('--task', choices=TASKS, help='needed if the layout does not determine it')
    parser.add_argument('--model', choices=PRESETS, help='default: fast, or that of --weights')
    parser.add_argument('--weights', type=Path, help='.safetensors file (default: the shipped one)')
    add_finder_options(parser)
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--output', type=Path, help='write results.md, .csv and .json there')
    parser.add_argument('--report', action='store_true', help='write report.html with pictures too')
    parser.add_argument('--synthetic', type=int, metavar='SEED', help='degrade sharp pictures')
    parser.add_argument(
        '--kind', action='append', choices=KINDS, default=[],
        help='with --video and --synthetic, for derain: what degrades the frames (default: rain)',
    )
    parser.add_argument(
        '--limit', type=int,
        help=f'pictures of each root, spread evenly; frames of each clip (default: {CLIP})',
    )
    parser.add_argument('--video', action='store_true', help='measure sequences, see above')
    parser.add_argument(
        '--shutter', type=float, default=0.0,
        help='with --video: share (0..1) of the frame time that the shutter is open '
        '(default: unknown)',
    )
    parser.add_argument('--detector', type=Path, metavar='ONNX', help='measure what it finds')
    parser.add_argument(
        '--score', type=float, help=f'score from which a detection counts (default: {SCORE})'
    )
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME',
        help=f'classes to find (default: {", ".join(ROAD)})',
    )
    parser.add_argument(
        '--labels', type=Path, metavar='DIR', help='ground truth as YOLO text (default: what the '
        'detector finds in the sharp pictures)',
    )
    options = parser.parse_args()
    if options.report and not options.output:
        parser.error('--report needs --output')
    least = SHORTEST if options.video else 1
    if options.limit is not None and options.limit < least:
        parser.error(f'--limit must be at least {least}')
    if not 0 <= options.shutter <= 1:
        parser.error('--shutter must be a share, 0 (unknown) to 1')
    if options.shutter and not options.video:
        parser.error('--shutter needs --video')
    if options.kind and not (options.video and options.synthetic is not None):
        parser.error('--kind needs --video and --synthetic SEED')
    if not options.detector and (options.score, options.classes, options.labels) != (None,) * 3:
        parser.error('--score, --classes and --labels need --detector')
    if options.score is not None and not LEAST <= options.score <= 1:
        parser.error(f'--score must be {LEAST} to 1')
    if options.labels and len(options.root) > 1:
        parser.error('--labels is for one ROOT')
    try:
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            check_replaceable(options.output)
        report, facts = run(options)
        console = Console()
        console.width = max(console.width, TABLE_WIDTH)
        print_tables(console, report.tables)
        if options.output:
            write_files(options.output, report, facts)
        if options.report:
            write_page(options.output / 'report.html', report, facts)
    except (OutputError, WeightsError, RestoreError, ValueError, OSError) as error:
        parser.error(str(error))
    return 0


def run(options: argparse.Namespace) -> tuple[Report, dict[str, Any]]:
    """Measure as the options say; return the report and the facts that its numbers depend on."""
    find: Callable[[str, str | None, int | None], Root] = open_root
    if options.video:
        find = partial(
            open_clips, limit=options.limit or CLIP, shutter=options.shutter, kinds=options.kind
        )
    roots = [find(text, options.task, options.synthetic) for text in options.root]
    judge = _judge(options, roots)
    device = pick_device(options.device)
    generators, weights = {}, {}
    for task in dict.fromkeys(root.task for root in roots):
        generators[task], weights[task] = _load(task, device, options)
    clearers = {
        task: load_clearer(finder_files(options)) for task in generators if TASKS[task].clears
    }
    sliders = max(1, SLIDERS // len(roots)) if options.report else 0
    if options.video:
        report = video_report([
            measure_clips(
                root, generators[root.task], options.shutter, sliders, judge,
                clearers.get(root.task),
            )
            for root in roots
        ], judge, [kind for kind in KINDS if kind in options.kind])
    else:
        report = picture_report([
            measure_pictures(
                root, generators[root.task], device, options.limit, sliders, judge,
                clearers.get(root.task),
            )
            for root in roots
        ], judge)
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    return report, {
        'command': shlex.join(['evaluate', *sys.argv[1:]]),
        'device': f'{device} {name}',
        'weights': weights,
        'detector': judge.facts() if judge else {},
        'versions': {'python': platform.python_version()} | {
            package: version(package) for package in ('torch', 'numpy', 'scikit-image')
        },
    }


def _judge(options: argparse.Namespace, roots: list[Root]) -> Judge | None:
    """Load the detector once for all ``roots``; None if none is given."""
    if options.detector is None:
        return None
    score = SCORE if options.score is None else options.score
    judge = open_judge(options.detector, options.classes, score, options.labels)
    if judge.labels is not None:
        [root] = roots
        if root.layout == 'synthetic' and TASKS[root.task].margin:
            raise DetectorError('--labels do not fit synthetic blur, which removes a margin')
        judge.labels.check(
            name for clip, _ in root.pictures for name in root.frames.get(clip, [clip])
        )
    return judge


def _load(
    task: str, device: torch.device, options: argparse.Namespace
) -> tuple[Generator, dict[str, str]]:
    """Return the generator for ``task``, and the information in its weight file."""
    path = options.weights or shipped_weights(options.model or 'fast', task)
    generator, info = load_weights(path, task, options.model)
    if options.video and info.preset not in VIDEO:
        raise WeightsError(
            f'{path}: {info.preset} uses no previous frame, --video is for {", ".join(VIDEO)}'
        )
    return generator.to(device), {'file': str(path)} | asdict(info)


def _spread(items: list, count: int | None) -> list:
    """Return ``count`` of ``items``, spread evenly; all if ``count`` is None or not smaller."""
    if count is None or count >= len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def _slider(
    root: Root, score: Score, degraded: Image, restored: Image, sharp: Image, judge: Judge | None
) -> Slider:
    text = ', '.join(
        f'{name} {score.before[name]:.2f} -> {score.after[name]:.2f}'
        for name in ('PSNR dB', 'features kept %')
    )
    boxes = ''
    if judge is not None:
        both = score.found['input'], score.found['restored']
        text += f', {counts_text(*both, judge.score)}'
        boxes = overlay(*both, sharp.shape, judge.score)
    truth = '' if degraded is sharp else data_url(sharp)
    title = f'{root.path.name}: {score.name}'
    return Slider(title, text, data_url(degraded), data_url(restored), truth, boxes)


if __name__ == '__main__':
    sys.exit(main())
