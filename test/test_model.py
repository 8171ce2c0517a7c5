"""The networks against the paper's figures, and images of any size."""

import pytest
import torch
from torch import nn

from iov_restore_ros.compute.device import pick_device
from iov_restore_ros.compute.phase_convolution import fold_upsampling
from iov_restore_ros.model import PRESETS, Discriminator, Generator
from iov_restore_ros.tools.layer_table import layer_table


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ('preset', 'count'),
    [('wei2021', 18_459_139), ('wei2021_preprint', 11_378_179), ('fast', 1_301_299)],
)
def test_parameter_counts_of_the_generators(preset, count):
    assert parameters(Generator(preset)) == count


def test_parameter_counts_of_table_1():
    layers = [m for m in Discriminator().layers if isinstance(m, nn.Conv2d | nn.Linear)]
    # Layer 6 is 2,097,644 in the paper, a misprint: 4*4*256*512 + 512 = 2,097,664.
    assert [parameters(m) for m in layers] == [
        3136, 65600, 131200, 524544, 2097664, 8193, 263168, 1025
    ]


def test_feature_maps_of_table_1():
    sizes = []
    discriminator = Discriminator()
    for layer in discriminator.layers:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    judged = discriminator(torch.rand(2, 3, 256, 256))
    assert sizes == [
        (64, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 16, 16), (1, 16, 16)
    ]
    assert judged.shape == (2, 1)
    assert ((judged > 0) & (judged < 1)).all()


def test_wei2021_has_ten_blocks_of_three_convolutions_with_dropout():
    blocks = [m for m in Generator('wei2021').body if type(m).__name__ == 'ResidualBlock']
    assert len(blocks) == 10
    for block in blocks:
        kinds = [type(m) for m in block.layers]
        assert kinds == [
            nn.Conv2d, nn.LeakyReLU, nn.Dropout, nn.Conv2d, nn.LeakyReLU, nn.Conv2d
        ]
        assert block.layers[2].p == 0.5


@pytest.mark.parametrize('preset', PRESETS)
@pytest.mark.parametrize('size', [(1, 1), (3, 2), (5, 7), (16, 16), (21, 34)])
def test_output_has_the_size_of_the_input(preset, size):
    generator = Generator(preset).eval()
    with torch.inference_mode():
        assert generator(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize('preset', PRESETS)
def test_batch_equals_single_images(preset):
    torch.manual_seed(0)
    generator = Generator(preset).eval()
    images = torch.rand(3, 3, 30, 41)
    with torch.inference_mode():
        together = generator(images)
        alone = torch.cat([generator(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_padding_does_not_reach_the_picture():
    """An odd-sized image is restored as the same image with its border repeated by hand."""
    torch.manual_seed(0)
    generator = Generator('fast').eval()
    image = torch.rand(1, 3, 13, 18)
    by_hand = nn.functional.pad(image, (0, 2, 0, 3), mode='replicate')
    with torch.inference_mode():
        torch.testing.assert_close(generator(image), generator(by_hand)[..., :13, :18])


def test_no_parameter_is_what_memory_held():
    """Else a new generator is NaN now and then."""
    torch.use_deterministic_algorithms(True)  # fills what is not initialised with NaN
    try:
        generator = Generator('fast')
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(parameter.isfinite().all() for parameter in generator.parameters())


def test_global_skip_stays_in_float32():
    """With a body that corrects nothing, bfloat16 weights must leave the image as it is."""
    generator = Generator('fast').to(torch.bfloat16)
    for parameter in generator.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 3, 20, 20)
    with torch.inference_mode():
        assert torch.equal(generator(image), image)


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (8, 12)])
def test_upsampling_folds_into_the_convolution_behind_it(size):
    torch.manual_seed(0)
    pair = nn.Sequential(nn.Upsample(scale_factor=2, mode='nearest'), nn.Conv2d(3, 5, 3, padding=1))
    [folded] = fold_upsampling(pair)
    x = torch.rand(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), pair(x))


def test_folding_leaves_the_rest_of_the_generator():
    torch.manual_seed(0)
    generator = Generator('wei2021').eval()
    image = torch.rand(1, 3, 22, 33)
    with torch.inference_mode():
        expected = generator(image)
        generator.body = fold_upsampling(generator.body)
        torch.testing.assert_close(generator(image), expected)
    assert not any(isinstance(m, nn.Upsample) for m in generator.modules())


def test_unknown_model_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match='wei2021_preprint, fast'):
        Generator('resnet')


@pytest.mark.parametrize('name', ['gpu', 'cuda:x', 'cuda:99', ''])
def test_wrong_device_is_refused(name):
    with pytest.raises(ValueError, match='device'):
        pick_device(name)


@pytest.mark.parametrize(('name', 'gmac'), [('wei2021', '1206.4'), ('fast', '74.8')])
def test_layer_table_adds_up(name, gmac):
    count = sum(parameter.numel() for parameter in Generator(name).parameters())
    totals = [list(column.cells)[-1] for column in layer_table(name).columns[3:]]
    assert totals == [f'{count:,}', gmac]
