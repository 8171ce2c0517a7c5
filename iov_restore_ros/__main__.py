"""All commands under one name: `iov_restore COMMAND`, or `ros2 run iov_restore COMMAND`."""

import sys
from importlib import import_module

COMMANDS = {  # name: (module whose main() it is, what it does)
    'restore_node': ('node.restore_node', 'the ROS 2 node'),
    'restore_files': ('tools.restore_files', 'restore pictures, folders and videos'),
    'restore_bag': ('tools.restore_bag', 'restore the images of a recorded drive'),
    'restore_fleet': ('tools.restore_fleet', 'restore many drives, on a machine or a Ray cluster'),
    'image_source': ('tools.image_source', 'publish pictures, a video or a camera to ROS'),
    'evaluate': ('evaluation.evaluate', 'measure restored pictures and sequences'),
    'gain_curves': ('evaluation.gain_curves', 'draw the gain against blur length and rain'),
    'export': ('tools.export', 'write a generator as ONNX'),
    'weights': ('tools.weights', 'print what weight files say of their training'),
    'layer_table': ('tools.layer_table', 'print a network layer by layer'),
    'train_glass': ('training.glass', 'train the network that finds drops and dirt on the glass'),
    'train_veil': ('training.veil', 'train the network that finds the veil of fog and far rain'),
    'train_blur': ('training.learned_blur', 'train a network that blurs sharp pictures'),
    'train': ('training.train', 'train a generator'),
}


def run(command: str) -> int:
    """Run ``command`` with the arguments in ``sys.argv[1:]``; returns the exit status."""
    module, _ = COMMANDS[command]
    return import_module(f'{__package__}.{module}').main()


def main() -> int:
    """Run the command line; returns the exit status."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in COMMANDS:
        sys.argv = [f'iov_restore {name}', *arguments]  # the name in help and errors
        return run(name)
    asked = name in ('-h', '--help') and len(sys.argv) > 1
    lines = [f'  {name:<14} {what}' for name, (_, what) in COMMANDS.items()]
    usage = '\n'.join(['usage: iov_restore COMMAND [ARGUMENT...]', '', *lines])
    if not asked and len(sys.argv) > 1:
        usage = f'iov_restore: no command {name!r}\n{usage}'
    print(usage, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == '__main__':
    sys.exit(main())
