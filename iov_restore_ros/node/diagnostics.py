"""What `/diagnostics` says about the node and its cameras."""

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from iov_restore_ros.node.statistics import Outcome, Report

MANY_DROPPED = 0.1  # share of a camera's frames from which dropping is worth a warning


def status(
    level: bytes, name: str, hardware: str, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Build a DiagnosticStatus; values are shown as text."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, hardware_id=hardware, message=message, values=pairs
    )


def camera_status(node: str, camera: str, report: Report, period: float) -> DiagnosticStatus:
    """Describe what happened to ``camera``'s frames, in all and in the last ``period`` seconds."""
    late = report.late_outcomes
    failed = late.get(Outcome.PASSED_AFTER_ERROR, 0) + late.get(Outcome.DROPPED_AFTER_ERROR, 0)
    unusable = late.get(Outcome.DROPPED_MALFORMED, 0) + late.get(Outcome.DROPPED_ENCODING, 0)
    older = late.get(Outcome.DROPPED_FOR_NEWER, 0)
    if failed:
        level, message = DiagnosticStatus.ERROR, f'{failed} frames could not be restored'
    elif unusable:
        level, message = DiagnosticStatus.ERROR, f'{unusable} frames could not be used'
    elif not report.late_received:
        level, message = DiagnosticStatus.WARN, 'no frames'
    elif older > MANY_DROPPED * report.late_received:
        level = DiagnosticStatus.WARN
        message = f'{older} of {report.late_received} frames dropped for newer ones'
    else:
        level, message = DiagnosticStatus.OK, 'restoring' if Outcome.RESTORED in late else 'passing'
    return status(level, f'{node}: camera {camera}', camera, message, {
        'fps in': f'{report.late_received / period:.1f}',
        'fps out': f'{report.late_published() / period:.1f}',
        'latency p50 ms': f'{1000 * report.latency(50):.1f}',
        'latency p99 ms': f'{1000 * report.latency(99):.1f}',
        'received': report.received,
        **{outcome.value: report.outcomes.get(outcome, 0) for outcome in Outcome},
    })
