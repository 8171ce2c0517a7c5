"""
Train what finds drops and dirt on the glass, on whole frames of sequences.

    python -m iov_restore_ros train_glass config/train/glass.yaml data.root=SHARP
"""

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from iov_restore_ros.model.glass import Glass
from iov_restore_ros.pictures.degradations.rain import streaks
from iov_restore_ros.pictures.files import read_image, list_images
from iov_restore_ros.pictures.soiled import smooth, soil
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.video.aligner import Previous, align
from iov_restore_ros.video.glass import CELL, expect, filled, observe

SIZE = 176, 320
LENGTH = 6, 22
MOMENTS = 4
FALLS = 60
IN_RAIN = 0.5


class SoiledSequences(Dataset):
    def __init__(self, stills, videos, count, seed, footage_share=0.45):
        self.stills, self.videos, self.count, self.seed = stills, videos, count, seed
        self.footage_share = footage_share
        self.falls = {}

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        length = int(rng.integers(*LENGTH))
        frames = self._ride(rng, length)
        soiled = soil(frames, rng)
        received = self._in_rain(soiled.received, rng)
        left = rng.random() ** 2 * (rng.random() < 0.5)
        restored = (soiled.clean + np.float32(left) * (
            soiled.received.astype(np.float32) - soiled.clean)).clip(0, 255).astype(np.uint8)
        memory, way, previous, samples = None, None, None, []
        wanted = set(rng.choice(np.arange(length), min(MOMENTS, length), replace=False).tolist())
        if rng.random() < 0.8:
            wanted.discard(0)
            while len(wanted) < MOMENTS:
                wanted.add(int(rng.integers(1, length)))
        for time in range(length):
            expected = None if previous is None else expect(restored[time - 1], way)
            planes, memory = observe(received[time], expected, memory)
            flow = align(received[time], previous, 'derain').flow
            way = None
            if flow is not None:
                known = 1 - cv2.resize(soiled.cover[time], flow.way.shape[1::-1], interpolation=cv2.INTER_AREA)
                way = cv2.resize(filled(flow.way, known * flow.trust[..., 1]), SIZE[::-1])
            previous = Previous(restored[time], 1.0, None)
            if time in wanted:
                samples.append((planes, *self._truth(soiled, time)))
        return tuple(np.stack(part).astype(np.float32) for part in zip(*samples, strict=True))

    def _truth(self, soiled, time):
        clean = soiled.clean[time].astype(np.float32) / 255
        around = cv2.GaussianBlur(clean, (0, 0), 6)
        cells = SIZE[1] // CELL, SIZE[0] // CELL
        kept = np.abs(soiled.received[time].astype(np.float32) / 255 - clean).mean(-1)
        made = np.abs(around - clean).mean(-1)
        return tuple(
            cv2.resize(plane, cells, interpolation=cv2.INTER_AREA)
            for plane in (soiled.cover[time], kept, made)
        )

    def _ride(self, rng, length):
        if self.videos and rng.random() < self.footage_share:
            frames = self.videos[int(rng.integers(len(self.videos)))]
            every = int(rng.integers(1, 1 + max(1, min(3, (len(frames) - 1) // length))))
            first = int(rng.integers(max(1, len(frames) - every * length)))
            part = frames[first : first + every * length : every]
            if len(part) < length:
                part = np.concatenate([part, part[::-1]])[:length]
            height, width = part.shape[1:3]
            across = min(width, int(height * 16 / 9), int(width * rng.uniform(0.6, 1)))
            down = int(across * 9 / 16)
            top, left = int(rng.integers(height - down + 1)), int(rng.integers(width - across + 1))
            part = part[:, top : top + down, left : left + across]
            if rng.random() < 0.5:
                part = part[:, :, ::-1]
            frames = np.stack([cv2.resize(f, SIZE[::-1], interpolation=cv2.INTER_AREA) for f in part])
        else:
            frames = self._over_still(rng, length)
        if rng.random() < 0.15:  # it stands for a while
            stop = int(rng.integers(length))
            frames = np.concatenate([frames[:stop], np.repeat(frames[stop : stop + 1], length - stop, 0)])
        if rng.random() < 0.3:
            level = np.linspace(0, 1, 256) ** rng.uniform(0.6, 2.2) * rng.uniform(0.3, 1.2)
            frames = cv2.LUT(frames.reshape(-1, SIZE[1], 3), (255 * level.clip(0, 1)).astype(np.uint8)).reshape(frames.shape)
        return frames

    def _over_still(self, rng, length):
        image = self.stills[int(rng.integers(len(self.stills)))]
        height, width = image.shape[:2]
        base = min(width / SIZE[1], height / SIZE[0]) * rng.uniform(0.55, 0.98)
        focus = rng.uniform((0.3, 0.35), (0.7, 0.6)) * SIZE[::-1]
        zoom = rng.choice([-1, 1], p=[0.2, 0.8]) * rng.uniform(0, 0.05) * (rng.random() < 0.7)
        pace = rng.normal(size=2) * rng.exponential(2.0) * (1, 0.3)
        shake = rng.normal(size=(length, 2)) * rng.exponential(0.3)
        middle = np.array([width, height]) / 2 + rng.normal(size=2) * 0.02 * width
        near = rng.random() < 0.5
        frames = []
        y = np.linspace(0, 1, SIZE[0])
        for time in range(length):
            step = time - length / 2
            scale = base * math.exp(-zoom * step)
            m = np.array([[scale, 0, 0], [0, scale, 0]])
            m[:, 2] = middle - scale * focus + base * (pace * step + shake[time])
            frame = cv2.warpAffine(image, m, SIZE[::-1], flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP if scale <= 1 else cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)
            frames.append(frame)
        return np.stack(frames)

    def _in_rain(self, frames, rng):
        result = frames.astype(np.float32)
        raining = rng.random() < IN_RAIN
        strength = rng.uniform(30, 300)
        noise = rng.uniform(0, 3)
        for frame in result:
            if raining:
                number = int(rng.integers(FALLS))
                if number not in self.falls:
                    large = torch.zeros(1, 3, 2 * SIZE[0], 2 * SIZE[1])
                    fall = streaks(large, torch.ones(1), torch.Generator().manual_seed(number))[0, 0].numpy()
                    self.falls[number] = cv2.resize(fall, SIZE[::-1], interpolation=cv2.INTER_AREA)
                fall = self.falls[number]
                if rng.random() < 0.5:
                    fall = fall[:, ::-1]
                frame += strength * fall[..., None]
            if noise > 0.5:
                frame += noise * rng.standard_normal(frame.shape, np.float32)
        return result.clip(0, 255).astype(np.uint8)


def glass_loss(logit, cover, kept, made):
    target = (1.4 * cover).clamp(0, 1) * (kept > 0.004)
    entropy = functional.binary_cross_entropy_with_logits(logit, target)
    share = torch.sigmoid(logit)
    wrong = ((1 - share) * kept + 0.8 * share * made - torch.minimum(kept, 0.8 * made)).mean()
    return entropy * 0.3 + 12 * wrong


def read_video(path, width=480):
    capture, frames = cv2.VideoCapture(str(path)), []
    for _ in range(1000):
        ok, frame = capture.read()
        if not ok:
            break
        scale = width / frame.shape[1]
        if path.name.startswith('kitti'):
            scale *= 2
        frames.append(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1])
    return np.ascontiguousarray(np.stack(frames))


def read_still(path, width=640):
    image = read_image(path)
    scale = min(1, width / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def score(glass, batches):
    """Return precision, recall (of the energy), and shares."""
    t = torch.zeros(6)
    with torch.inference_mode():
        for planes, cover, kept, made in batches:
            m = torch.sigmoid(glass(planes))
            hard = m > 0.5
            true = (cover > 0.3) & (kept > 0.008)
            t += torch.tensor([
                (hard & true).sum(), hard.sum(), true.sum(),
                kept.sum(), ((1 - m) * kept + m * 0.8 * made).sum(), torch.minimum(kept, 0.8 * made).sum(),
            ], dtype=torch.float32)
    return f'precision {t[0]/t[1]:.3f} recall {t[0]/t[2]:.3f} iou {t[0]/(t[1]+t[2]-t[0]):.3f} error {t[4]/t[3]:.3f} best {t[5]/t[3]:.3f}'


def main(out, steps, start=None, seed=1, rate=1e-3):
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(seed)
    S = Path('/work/shared/data')
    held = ('vd_test_small1.mp4', 'll_custom_me_night_1.mp4')
    videos = [read_video(p) for p in sorted([*(S / 'clips').glob('*.mp4'), *(S / 'footage').glob('*.mp4')]) if p.name not in held]
    tests = [read_video(S / 'clips' / name) for name in held]
    stills = [read_still(p) for d in ('urban', 'outdoor', 'city_driving', 'vehicles', 'kitti', 'motorway', 'cityscapes') for p in sorted((S / 'sharp' / d).iterdir())[::2]]
    stills += [read_still(p) for p in sorted((S / 'sharp' / 'natural').iterdir())[::4]]
    test = list(DataLoader(SoiledSequences(stills, tests, 24, 999, 1.0), 3, collate_fn=join))
    glass = Glass()
    if start:
        glass.load_state_dict(torch.load(start, weights_only=True))
    print(sum(p.numel() for p in glass.parameters()), 'weights', flush=True)
    average = torch.optim.swa_utils.AveragedModel(glass, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    optimiser = torch.optim.AdamW(glass.parameters(), weight_decay=1e-3)
    losses = []
    for step, batch in enumerate(DataLoader(SoiledSequences(stills, videos, steps * 3, seed), 3, collate_fn=join)):
        optimiser.param_groups[0]['lr'] = rate * max(0.01, 0.5 * (1 + math.cos(math.pi * step / steps))) * min(1, (step + 1) / 50)
        loss = glass_loss(glass(batch[0]), *batch[1:])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(glass.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(glass)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(step + 1, f'{np.mean(losses[-100:]):.4f}', score(average.module, test), flush=True)
            torch.save(average.module.state_dict(), out)


def join(items):
    return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*items, strict=True))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
