"""The record of a training run in its weight file."""

import json
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

FOLDERS = re.compile(r'(?<![\w./~-])/(?:[^/\s,\[\]\'"=]+/)+')  # the folders of an absolute path


def settings_text(config: Any) -> str:
    """Return the settings of a run, a dataclass, as JSON. Paths are cut to their names."""
    return json.dumps(asdict(config), default=lambda path: path.name)


def command_text(name: str, arguments: Sequence[str]) -> str:
    """Return a command line without the folders of this machine: `data.root=sharp`."""
    return shlex.join([name, *(FOLDERS.sub('', argument) for argument in arguments)])


def git_commit() -> str:
    """Return the working folder's commit, with '-dirty' if it has changes; '' outside of git."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ''
    return result.stdout.strip()


def machine_name(device: torch.device, processes: int = 1) -> str:
    """Return the hardware of ``processes`` like this one: GPUs, or threads of a CPU."""
    if device.type == 'cuda':
        return f'{processes} x {torch.cuda.get_device_name(device)}'
    name = platform.processor() or platform.machine()
    if Path('/proc/cpuinfo').is_file():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
        name = names[0] if names else name
    count = processes * torch.get_num_threads()
    return f'{count} {"thread" if count == 1 else "threads"} of {name}'
