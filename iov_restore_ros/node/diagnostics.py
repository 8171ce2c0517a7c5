"""The statuses that the node publishes on `/diagnostics`."""

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from iov_restore_ros.inference import Restorer
from iov_restore_ros.node.camera import Camera
from iov_restore_ros.node.statistics import Account, Outcome

MANY = 0.1  # share of lost or dropped frames of a camera from which on it warns
REMEDY = (
    'give the camera driver and this node the Fast DDS profile config/fastdds_large_images.xml of '
    'iov_restore (FASTDDS_DEFAULT_PROFILES_FILE; on Jazzy FASTRTPS_DEFAULT_PROFILES_FILE)'
)
NO_INPUT = 2.0  # s without a frame from which on it warns
WRONG_STAMPS = 'not newer', 'time jump'  # reasons to have no previous frame


def status(
    level: bytes, name: str, hardware: str, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Build a DiagnosticStatus; values are shown as text."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, hardware_id=hardware, message=message, values=pairs
    )


def restorer_values(restorer: Restorer) -> dict[str, object]:
    """Return the diagnostics of the generators in use and of their device."""
    memory = restorer.device_memory()
    return {
        'model': restorer.model,
        'device': restorer.device,
        'device name': restorer.device_name(),
        'precision': restorer.precision,
        'batch': restorer.batch,
        'passes halved': restorer.tiling.halved,
        **{f'{task} weights': path for task, path in restorer.weights.items()},
        **{f'{task} weights sha256': digest[:12] for task, digest in restorer.sha256.items()},
        **({} if memory is None else {
            'GPU memory MiB': f'{memory / 2**20:.0f}', 'CUDA graphs': restorer.graphs()
        }),
    }


def camera_status(
    node: str, camera: Camera, period: float, beside: Mapping[str, object], concern: str
) -> DiagnosticStatus:
    """
    Describe the outcomes of the camera's frames, in total and in the last ``period`` seconds.

    ``beside`` has more values to show. ``concern`` is a reason to warn; empty if all is well.
    """
    report = camera.statistics.report()
    late = report.late_outcomes
    failed = late.get(Outcome.PASSED_AFTER_ERROR, 0) + late.get(Outcome.DROPPED_AFTER_ERROR, 0)
    unusable = late.get(Outcome.DROPPED_MALFORMED, 0) + late.get(Outcome.DROPPED_ENCODING, 0)
    older = late.get(Outcome.DROPPED_FOR_NEWER, 0)
    lost = report.late_lost_on_the_way
    listening = camera.listening_for()
    concern = concern or stamp_concern(report) or camera.concern()
    if failed:
        level, message = DiagnosticStatus.ERROR, f'{failed} frames could not be restored'
    elif unusable:
        level, message = DiagnosticStatus.ERROR, f'{unusable} frames could not be used'
    elif listening is None:
        level, message = DiagnosticStatus.OK, 'idle: nobody subscribes to its frames'
    elif lost > MANY * (lost + report.late_received):
        level = DiagnosticStatus.WARN
        message = f'{lost} of {lost + report.late_received} frames lost on the way: {REMEDY}'
    elif (silence := min(listening, report.age)) > NO_INPUT:
        level = DiagnosticStatus.WARN
        message = f'no frames for {silence:.0f} s: {camera.publishers()}'
    elif older > MANY * report.late_received:
        level = DiagnosticStatus.WARN
        message = f'{older} of {report.late_received} frames dropped for newer ones'
    elif concern:
        level, message = DiagnosticStatus.WARN, concern
    else:
        level, message = DiagnosticStatus.OK, 'restoring' if Outcome.RESTORED in late else 'passing'
    return status(level, f'{node}: camera {camera.name}', camera.name, message, {
        'fps in': f'{report.late_received / period:.1f}',
        'fps out': f'{report.late_published() / period:.1f}',
        'age of the last frame s': f'{report.age:.1f}',
        **{
            f'{name} p{percent} ms': f'{1000 * report.percentile(timing, percent):.1f}'
            for timing, name in (
                ('latency', 'latency'), ('in_node', 'in the node'), ('restoring', 'restoring'),
                ('aligning', 'aligning'),
            )
            for percent in (50, 99)
        },
        'lost before the node': f'{report.lost} of {report.lost + report.received}',
        'lost on the way': report.lost_on_the_way,
        'received': report.received,
        **{outcome.value: report.outcomes.get(outcome, 0) for outcome in Outcome},
        'frame before': _counted(report.pasts),
        'transmission': f'{camera.history.transmission():.2f}',
        'glass covered %': f'{100 * camera.history.covered():.1f}',
        **({'frames with gyroscope': _counted(report.turns)} if report.turns else {}),
        **beside,
    })


def dirt_concern(camera: Camera, dirty: float) -> str:
    """Return a warning if more than the share ``dirty`` of the glass is covered; else empty."""
    covered = camera.history.covered()
    if not dirty or not covered > dirty:
        return ''
    return f'drops or dirt cover {covered:.0%} of the glass: wipe it'


def stamp_concern(report: Account) -> str:
    """Return what is wrong with the stamps of recent frames; empty if all is well."""
    if report.late_unstamped > MANY * report.late_received:
        return 'the frames have no stamps: the time of arrival counts'
    restored = sum(report.late_pasts.values())
    wrong = sum(report.late_pasts.get(why, 0) for why in WRONG_STAMPS)
    if wrong > restored / 2:
        return (
            f'{wrong} of {restored} frames restored alone: '
            'their stamps do not advance, or jump back'
        )
    return ''


def _counted(counts: Mapping[str, int]) -> str:
    """Return how many frames had it (a previous frame, a gyroscope), and why others did not."""
    without = ', '.join(f'{why} {count}' for why, count in sorted(counts.items()) if why)
    text = f'{counts.get("", 0)} of {sum(counts.values())}'
    return f'{text}; none: {without}' if without else text
