"""Pixel losses, the perceptual loss and its VGG19, and the adversarial objectives."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from iov_restore_ros.model import Discriminator, WeightsError
from iov_restore_ros.training import losses
from iov_restore_ros.training.adversarial import (
    COLLAPSE_STEPS,
    OBJECTIVES,
    Judgement,
    collapsed,
    gradient_penalty,
)
from iov_restore_ros.training.losses import (
    LOSSES,
    PIXEL_LOSSES,
    RestorationLoss,
    charbonnier,
    fft,
    l1,
    perceptual,
    psnr_loss,
)

SHAPES = {'conv1_1': (64, 3), 'conv1_2': (64, 64), 'conv2_1': (128, 64), 'conv2_2': (128, 128)}
TORCHVISION_PLACES = {'conv1_1': 0, 'conv1_2': 2, 'conv2_1': 5, 'conv2_2': 7}
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
CAFFE_MEAN = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)  # blue, green, red


@pytest.fixture(scope='module')
def filters():
    """Random filters of Keras' kind: for BGR, 0..255; out x in x 3 x 3 and biases."""
    rng = torch.Generator().manual_seed(3)
    return {
        name: (
            torch.randn(*shape, 3, 3, generator=rng) * math.sqrt(2 / (9 * shape[1])),
            10 * torch.randn(shape[0], generator=rng),
        )
        for name, shape in SHAPES.items()
    }


@pytest.fixture(scope='module')
def keras_file(filters, tmp_path_factory):
    arrays = {}
    for name, (kernel, bias) in filters.items():
        key = f'block{name[4]}_conv{name[6]}'
        arrays[f'{key}__kernel'] = kernel.permute(2, 3, 1, 0).numpy()
        arrays[f'{key}__bias'] = bias.numpy()
    path = tmp_path_factory.mktemp('vgg') / 'vgg19.npz'
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope='module')
def torchvision_file(filters, tmp_path_factory):
    """The same filters for RGB over ImageNet's deviation, features over 255 * 0.226."""
    state = {'classifier.0.weight': torch.zeros(2, 2)}
    for name, (kernel, bias) in filters.items():
        if name == 'conv1_1':
            # Its mean differs a little from Keras' as well.
            kernel = kernel.flip(1) * 255
            shift = (kernel.sum((2, 3)) * (MEAN - CAFFE_MEAN.flip(1) / 255).flatten()).sum(1)
            kernel, bias = kernel * STD / (255 * 0.226), bias + shift
        state[f'features.{TORCHVISION_PLACES[name]}.weight'] = kernel
        state[f'features.{TORCHVISION_PLACES[name]}.bias'] = bias / (255 * 0.226)
    path = tmp_path_factory.mktemp('vgg') / 'vgg19.pth'
    torch.save(state, path)
    return path


@pytest.fixture(scope='module')
def picture(photograph):
    return torch.from_numpy(photograph[100:148, 100:148]).permute(2, 0, 1)[None] / 255


def plain_features(image, filters):
    """Compute conv2_2 of Keras' network, step by step."""
    x = image.flip(1) * 255 - CAFFE_MEAN
    for name, (kernel, bias) in filters.items():
        if name == 'conv2_1':
            x = functional.max_pool2d(x, 2)
        x = functional.conv2d(x, kernel, bias, padding=1).clamp(min=0)
    return x


def pair(size=16, count=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    target = torch.rand(count, 3, size, size, generator=rng)
    return target + 0.1 * torch.randn(target.shape, generator=rng), target


def test_pixel_losses_of_a_known_difference():
    target = torch.full((2, 3, 4, 8), 0.5)
    restored = target + torch.tensor([0.1, -0.3]).view(2, 1, 1, 1)
    assert charbonnier(restored, target).item() == pytest.approx(
        (math.sqrt(0.01 + 1e-6) + math.sqrt(0.09 + 1e-6)) / 2, rel=1e-5
    )
    assert l1(restored, target).item() == pytest.approx(0.2, rel=1e-5)
    # PSNR of each picture: 20 dB and 10.46 dB.
    assert psnr_loss(restored, target).item() == pytest.approx(
        -(20 - 10 * math.log10(0.09)) / 2, rel=1e-5
    )
    # A constant has one frequency of 4 x (8/2 + 1), of height 4 * 8 * d, and no imaginary part.
    assert fft(restored, target).item() == pytest.approx(32 * 0.2 / (20 * 2), rel=1e-5)


def test_equal_pictures_cost_nothing(keras_file):
    _, target = pair()
    assert l1(target, target) == fft(target, target) == 0
    assert charbonnier(target, target).item() == pytest.approx(1e-3)
    assert psnr_loss(target, target).item() == pytest.approx(-80)
    assert perceptual(losses.VGG19Features('conv1_2', keras_file), target, target) == 0


@pytest.mark.parametrize('name', LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(name, keras_file):
    loss = RestorationLoss({name: 1.0}, keras_file, 'conv2_1')
    restored, target = pair()
    restored.requires_grad_()
    before, _ = loss(restored, target)
    before.backward()
    stepped = restored.detach() - 0.01 * restored.grad / restored.grad.abs().max()
    assert loss(stepped, target)[0] < before
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_the_total_is_the_weighted_sum(keras_file):
    weights = {'charbonnier': 2.0, 'fft': 0.5, 'psnr': 0.0, 'perceptual': 0.25}
    restored, target = pair()
    restored.requires_grad_()
    total, values = RestorationLoss(weights, keras_file, 'conv1_2')(restored, target)
    assert list(values) == ['charbonnier', 'fft', 'perceptual']
    assert not any(value.requires_grad for value in values.values())
    assert total.item() == pytest.approx(
        sum(weights[name] * value.item() for name, value in values.items()), rel=1e-6
    )
    assert values['fft'] == fft(restored, target)


@pytest.mark.parametrize(
    ('weights', 'message'),
    [({'ssim': 1.0}, 'ssim.*charbonnier, l1, psnr, fft, perceptual'), ({'l1': -1.0}, 'l1.*-1'),
     ({'l1': math.nan}, 'nan'), ({'l1': 0.0}, 'no loss has a weight'), ({}, 'no loss')],
)
def test_wrong_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        RestorationLoss(weights)


def test_vgg_is_only_read_for_the_perceptual_loss(tmp_path):
    RestorationLoss({'l1': 1.0, 'perceptual': 0.0}, tmp_path / 'missing.npz')
    with pytest.raises(WeightsError, match=r'missing\.npz'):
        RestorationLoss({'l1': 1.0, 'perceptual': 1.0}, tmp_path / 'missing.npz')


def test_losses_are_float32_under_autocast(keras_file):
    loss = RestorationLoss(dict.fromkeys(LOSSES, 1.0), keras_file, 'conv2_1')
    restored, target = pair()
    _, exact = loss(restored, target)
    with torch.autocast('cpu', torch.bfloat16):
        total, values = loss(restored.requires_grad_(), target)
    total.backward()
    assert total.dtype == torch.float32
    for name in PIXEL_LOSSES:
        assert values[name] == exact[name], name
    assert values['perceptual'].dtype == torch.float32
    assert values['perceptual'].item() == pytest.approx(exact['perceptual'].item(), rel=0.02)
    assert restored.grad.isfinite().all()
    # What a generator in bfloat16 hands over is compared in float32 as well.
    assert loss(restored.detach().bfloat16(), target)[0].dtype == torch.float32


def test_perceptual_sums_over_channels_and_averages_over_places_and_batch():
    restored, target = pair()
    expected = ((restored - target) ** 2).sum() / (2 * 16 * 16)
    torch.testing.assert_close(perceptual(nn.Identity(), restored, target), expected)


def test_features_equal_a_plain_computation(picture, filters, keras_file):
    features = losses.VGG19Features('conv2_2', keras_file)(picture)
    assert features.shape == (1, 128, 24, 24)
    torch.testing.assert_close(
        features, plain_features(picture, filters) / (255 * 0.226), rtol=1e-4, atol=1e-4
    )
    assert 0.1 < (features > 0).float().mean() < 0.9


def test_both_files_give_the_same_features(picture, keras_file, torchvision_file):
    ours = losses.VGG19Features('conv2_2', keras_file)(picture)
    theirs = losses.VGG19Features('conv2_2', torchvision_file)(picture)
    # At the border the padding, zero after the mean is taken off, is not the same grey.
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(theirs[inside], ours[inside], rtol=1e-3, atol=1e-3)


def test_vgg_is_frozen_and_passes_gradients_to_the_picture(picture, keras_file):
    network = losses.VGG19Features('conv1_2', keras_file)
    image = picture.clone().requires_grad_()
    network(image).sum().backward()
    assert image.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_layers_are_looked_for_at_torchvisions_places(tmp_path):
    """All names of the published file are known; only the shapes in this one are wrong."""
    published = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    torch.save({
        f'features.{place}.{kind}': torch.zeros(1)
        for place in published for kind in ('weight', 'bias')
    }, tmp_path / 'vgg19.pth')
    with pytest.raises(WeightsError) as error:
        losses.VGG19Features('conv5_4', tmp_path / 'vgg19.pth')
    for place in published:
        assert f'size mismatch for {place}.weight' in str(error.value)


def test_files_that_cannot_be_used_are_named(tmp_path, keras_file, torchvision_file):
    def message(path, layer='conv1_2'):
        with pytest.raises(WeightsError) as error:
            losses.VGG19Features(layer, path)
        assert str(path) in str(error.value)
        return str(error.value)

    # Layers that the file doesn't have: what was looked for, and what is there.
    for path, missing, there in (
        (keras_file, 'block3_conv1__kernel', 'block2_conv2__kernel'),
        (torchvision_file, 'features.10.weight', 'features.7.weight'),
    ):
        text = message(path, 'conv3_1')
        assert missing in text and there in text

    rubbish = tmp_path / 'rubbish.npz'
    rubbish.write_text('not an archive')
    message(rubbish)
    message(rubbish.rename(tmp_path / 'rubbish.pth'))
    message(tmp_path / 'nothing.pth')
    for empty in (tmp_path / 'empty.npz', tmp_path / 'empty.pth'):
        empty.touch()
        message(empty)
    torch.save(torch.zeros(2), tmp_path / 'tensor.pth')
    assert 'Tensor' in message(tmp_path / 'tensor.pth')
    torch.save(
        {f'features.{i}.{kind}': torch.zeros(5) for i in (0, 2) for kind in ('weight', 'bias')},
        tmp_path / 'shape.pth',
    )
    assert 'size mismatch' in message(tmp_path / 'shape.pth')
    np.savez(tmp_path / 'objects.npz', block1_conv1__kernel=np.array([{}, None]))
    message(tmp_path / 'objects.npz')
    with pytest.raises(ValueError, match=r'conv3_5.*conv3_4, conv4_1'):
        losses.VGG19Features('conv3_5', keras_file)


def test_download(tmp_path, monkeypatch, picture, torchvision_file):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    content = torchvision_file.read_bytes()
    published = tmp_path / f'vgg19-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    monkeypatch.setattr(losses, 'URL', published.as_uri())
    with pytest.raises(WeightsError, match='set vgg=FILE') as error:
        losses.VGG19Features('conv1_2')
    assert published.as_uri() in str(error.value)

    published.write_bytes(content)
    downloaded = losses.VGG19Features('conv1_2')(picture)
    assert torch.equal(downloaded, losses.VGG19Features('conv1_2', torchvision_file)(picture))


class Judge(nn.Module):
    """A discriminator of one linear layer, with or without the sigmoid."""

    def __init__(self, last=None):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 1), last or nn.Sigmoid())

    def forward(self, image):
        return self.layers(image)


def rng():
    return torch.Generator().manual_seed(7)


def faces(count=3):
    return pair(size=4, count=count)


def test_wasserstein_losses_are_differences_of_means():
    judge = Judge()
    restored, real = faces()
    loss, judgement = OBJECTIVES['wasserstein'].discriminator_loss(judge, real, restored, rng())
    on_real, on_restored = judge(real), judge(restored)
    assert loss.item() == pytest.approx((on_restored.mean() - on_real.mean()).item(), abs=1e-6)
    assert judgement == pytest.approx((
        on_real.mean().item(), on_restored.mean().item(),
        (on_restored * (1 - on_restored)).mean().item(),
    ))
    assert OBJECTIVES['wasserstein'].generator_loss(judge, restored).item() == pytest.approx(
        -on_restored.mean().item()
    )


def test_original_objective_is_binary_cross_entropy_of_the_logits():
    judge, logits = Judge(), Judge(nn.Identity())
    restored, real = faces()
    loss, _ = OBJECTIVES['original'].discriminator_loss(judge, real, restored, rng())
    expected = functional.binary_cross_entropy_with_logits(
        torch.cat([logits(real), logits(restored)]), torch.tensor([[1.0]] * 3 + [[0.0]] * 3)
    )
    assert loss.item() == pytest.approx(2 * expected.item(), rel=1e-5)
    equation_5 = (judge(real).log() + (1 - judge(restored)).log()).mean()
    assert loss.item() == pytest.approx(-equation_5.item(), rel=1e-5)
    assert OBJECTIVES['original'].generator_loss(judge, restored).item() == pytest.approx(
        -judge(restored).log().mean().item(), rel=1e-5
    )


def test_penalty_on_a_linear_discriminator_is_known():
    """Its gradient is its weight vector everywhere."""
    judge = Judge(nn.Identity())
    restored, real = faces()
    norm = judge.layers[1].weight.norm().item()
    penalty = gradient_penalty(judge, real, restored, rng())
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-5)
    loss, _ = OBJECTIVES['wgan_gp'].discriminator_loss(judge, real, restored, rng())
    distance = (judge(restored).mean() - judge(real).mean()).item()
    assert loss.item() == pytest.approx(distance + 10 * (norm - 1) ** 2, rel=1e-4)


def test_penalty_equals_finite_differences_between_real_and_restored():
    judge = Judge().double()
    restored, real = (image.double() for image in faces())
    generator = rng()
    share = torch.rand(3, 1, 1, 1, generator=generator).double()
    point = share * real + (1 - share) * restored
    step = 1e-6 * torch.eye(3 * 16, dtype=torch.double).view(-1, 3, 4, 4)
    expected = 0.0
    with torch.no_grad():
        for one in point:
            slopes = (judge(one + step) - judge(one - step)) / 2e-6
            expected += (slopes.norm().item() - 1) ** 2 / 3
    # The penalty itself is taken in float32.
    penalty = gradient_penalty(judge.float(), real.float(), restored.float(), rng())
    assert penalty.item() == pytest.approx(expected, rel=1e-4)
    penalty.backward()
    assert judge.layers[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize('name', OBJECTIVES)
def test_a_step_of_the_discriminator_tells_real_from_restored(name):
    objective, judge = OBJECTIVES[name], Judge()
    restored, real = faces()
    restored.requires_grad_()
    objective.after_step(judge)
    optimiser = torch.optim.SGD(judge.parameters(), 1e-3)
    before, judged_before = objective.discriminator_loss(judge, real, restored, rng())
    before.backward()
    assert restored.grad is None
    optimiser.step()
    objective.after_step(judge)
    after, judged = objective.discriminator_loss(judge, real, restored, rng())
    assert after < before
    if name != 'wgan_gp':  # where the penalty outweighs the distance
        assert judged.real - judged.restored > judged_before.real - judged_before.restored


@pytest.mark.parametrize('name', OBJECTIVES)
def test_a_step_of_the_generator_fools_the_discriminator(name):
    judge = Judge()
    restored, _ = faces()
    restored.requires_grad_()
    loss = OBJECTIVES[name].generator_loss(judge, restored)
    loss.backward()
    with torch.no_grad():
        assert judge(restored - restored.grad).mean() > judge(restored).mean()


@pytest.mark.parametrize('name', OBJECTIVES)
def test_broken_numbers_come_out_as_such(name):
    """The trainer's rule for them needs a value, not an error."""
    judge, broken = Judge(), torch.full((2, 3, 4, 4), math.nan)
    _, real = faces(2)
    loss, judgement = OBJECTIVES[name].discriminator_loss(judge, real, broken, rng())
    assert loss.isnan() and math.isnan(judgement.restored)
    assert OBJECTIVES[name].generator_loss(judge, broken).isnan()


def test_original_objective_stays_finite_where_the_sigmoid_is_exact():
    judge = Judge()
    with torch.no_grad():
        judge.layers[1].bias.fill_(200.0)
    restored, real = faces()
    loss, _ = OBJECTIVES['original'].discriminator_loss(judge, real, restored, rng())
    loss.backward()
    assert loss.isfinite()
    assert judge.layers[1].weight.grad.isfinite().all()


def test_only_clipping_bounds_the_weights():
    for name, objective in OBJECTIVES.items():
        judge = Judge()
        before = judge.layers[1].weight.detach().clone()
        with torch.no_grad():
            judge.layers[1].bias.fill_(5.0)
        objective.after_step(judge)
        weight, bias = judge.layers[1].weight, judge.layers[1].bias
        if name == 'wgan_clip':
            assert weight.abs().max() <= 0.01 and bias.item() == pytest.approx(0.01)
            torch.testing.assert_close(weight, before.clamp(-0.01, 0.01))
        else:
            assert torch.equal(weight, before) and bias.item() == 5


def test_table_1_discriminator_under_autocast():
    """The penalty reaches its weights, and nothing is rounded to bfloat16."""
    torch.manual_seed(0)
    discriminator = Discriminator()
    restored, real = pair(size=256, count=1)
    objective = OBJECTIVES['wgan_gp']
    with torch.autocast('cpu', torch.bfloat16):
        loss, judgement = objective.discriminator_loss(discriminator, real, restored, rng())
    loss.backward()
    assert loss.dtype == torch.float32
    with torch.no_grad():
        assert judgement.real == pytest.approx(discriminator(real).item(), abs=1e-6)
    gradients = [parameter.grad for parameter in discriminator.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].abs().max() > 0


def steps(real, restored, count=COLLAPSE_STEPS):
    return [Judgement(real, restored, restored * (1 - restored))] * count


@pytest.mark.parametrize(
    ('history', 'reason'),
    [
        (steps(0.999, 0.002), 'saturated'),
        (steps(1.0, 1.0), 'saturated'),
        (steps(0.5, 0.5), 'blind'),
        (steps(0.8, 0.3) + steps(0.999, 0.002), 'saturated'),
        (steps(0.999, 0.002) + steps(0.8, 0.3), None),
        (steps(0.8, 0.3), None),
        (steps(0.95, 0.05), None),
        (steps(0.999, 0.002, COLLAPSE_STEPS - 1), None),
        (steps(0.5, 0.5, COLLAPSE_STEPS - 1) + steps(0.6, 0.55, 1), None),
        # Equal at each step, but not the same for every picture.
        (steps(0.5, 0.5, COLLAPSE_STEPS - 1) + steps(0.6, 0.6, 1), None),
        # One bad batch doesn't hide a collapse.
        (steps(0.999, 0.002, COLLAPSE_STEPS - 1) + steps(0.6, 0.4, 1), 'saturated'),
        ([], None),
    ],
)
def test_collapse(history, reason):
    said = collapsed(history)
    assert (said is None) if reason is None else (reason in said)


def test_a_discriminator_that_has_won_is_reported():
    """The rule on real judgements: a bias of 40 leaves the sigmoid no slope."""
    judge = Judge()
    with torch.no_grad():
        judge.layers[1].bias.fill_(40.0)
    restored, real = faces()
    loss, judgement = OBJECTIVES['wasserstein'].discriminator_loss(judge, real, restored, rng())
    loss.backward()
    assert judge.layers[1].weight.grad.abs().max() == 0
    assert 'saturated' in collapsed([judgement] * COLLAPSE_STEPS)
