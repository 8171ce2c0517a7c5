"""How good a picture is: for people (PSNR, SSIM) and for machines (SIFT features kept)."""

import cv2
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

FEATURES = 2000
MATCH_RATIO = 0.8
MATCH_DISTANCE = 3.0  # pixels


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR in dB of two uint8 images of the same shape (H x W or H x W x 3)."""
    if np.array_equal(picture, truth):
        return float('inf')
    return float(peak_signal_noise_ratio(truth, picture))


def luma(image: np.ndarray) -> np.ndarray:
    """Return Y (BT.601, 16..235, uint8 H x W) of uint8 RGB, the channel deraining is scored on."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.round(image @ weights + 16).astype(np.uint8)


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Return the SSIM of two uint8 images as Wang et al. 2004 define it, mean over channels."""
    return float(structural_similarity(
        truth, picture, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=-1 if truth.ndim == 3 else None,
    ))


def features_kept(picture: np.ndarray, truth: np.ndarray) -> float:
    """
    Return the share (0..1) of the sharp image's features that a matcher finds in ``picture``.

    The ``FEATURES`` strongest SIFT features of ``truth`` count as kept when their match (Lowe's
    ratio test) lies within ``MATCH_DISTANCE`` pixels of their place. Both images are uint8
    H x W x 3, RGB.
    """
    sift = cv2.SIFT_create(FEATURES)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (truth, picture)]
    (points, wanted), (found, offered) = (sift.detectAndCompute(image, None) for image in grey)
    if wanted is None or offered is None or len(offered) < 2:
        return 0.0
    kept = 0
    for best, second in cv2.BFMatcher().knnMatch(wanted, offered, k=2):
        if best.distance < MATCH_RATIO * second.distance:
            there, here = points[best.queryIdx].pt, found[best.trainIdx].pt
            kept += float(np.hypot(there[0] - here[0], there[1] - here[1])) <= MATCH_DISTANCE
    return kept / len(points)
