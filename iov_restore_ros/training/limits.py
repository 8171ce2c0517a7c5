"""The numbers that a setting may have."""

import math
from operator import attrgetter
from typing import Any

MORE_THAN_0 = 1e-12
LIMITS = {  # least and most
    'batch': (1, math.inf),
    'accumulate': (1, math.inf),
    'save_every': (1, math.inf),
    'threads': (0, math.inf),
    'seed': (0, math.inf),
    'ema': (0, 1),
    'ramp': (0, 1),
    'fusion_rate': (0, math.inf),
    'max_gradient': (MORE_THAN_0, math.inf),
    'rate.start': (MORE_THAN_0, math.inf),
    'rate.end': (0, math.inf),
    'rate.warm_up': (0, math.inf),
    'adversarial.weight': (0, math.inf),
    'data.crop': (16, math.inf),
    'data.noise': (0, 1),
    'data.footage_share': (0, 1),
    'data.pairs_share': (0, 1),
    'data.pairs_shutter': (0, 1),
    'data.shaken': (0, 1),
    'data.clean': (0, 1),
    'data.light': (0, 1),
    'data.cache_gb': (0, math.inf),
    'data.workers': (0, math.inf),
}


def check_limits(config: Any) -> None:
    """Raise ``ValueError`` that names the first of ``LIMITS`` which a ``TrainConfig`` is beyond."""
    for name, (least, most) in LIMITS.items():
        value = attrgetter(name)(config)
        if value is not None and not least <= value <= most:  # so that NaN is beyond, too
            wanted = f'{least} and more' if most == math.inf else f'{least} to {most}'
            raise ValueError(f'{name}={value}: {wanted}')
    data = config.data
    if data.clean + data.light > 1:
        raise ValueError(f'data.clean={data.clean}, data.light={data.light}: together 1 at most')
