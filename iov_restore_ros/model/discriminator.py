"""The discriminator of Table 1, used in training only."""

from torch import Tensor, nn

from iov_restore_ros.model.generators import LEAKY_SLOPE

INPUT_SIZE = 256  # pixels; the dense layers fix it


class Discriminator(nn.Module):
    """
    Tells real images (1) from restored ones (0): a PatchGAN with dense layers (Sec. 3.3.2).

    Table 1 (4x4 convolutions with bias, no batch normalisation; parameters per layer):

    === ====== ================ ====== ==========
    #   layer  feature map      stride parameters
    === ====== ================ ====== ==========
    1   input  256 x 256 x 3
    2   conv   128 x 128 x 64   2      3,136
    3   conv   64 x 64 x 64     2      65,600
    4   conv   32 x 32 x 128    2      131,200
    5   conv   16 x 16 x 256    2      524,544
    6   conv   16 x 16 x 512    1      2,097,664 (the table's 2,097,644 is a misprint)
    7   conv   16 x 16 x 1      1      8,193
    8   dense  1024                    263,168
    9   dense  1, sigmoid              1,025
    === ====== ================ ====== ==========
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for outputs, stride in ((64, 2), (64, 2), (128, 2), (256, 2), (512, 1)):
            layers += [*same_conv(channels, outputs, stride), nn.LeakyReLU(LEAKY_SLOPE)]
            channels = outputs
        layers += same_conv(channels, 1, 1)
        side = INPUT_SIZE // 16
        layers += [nn.Flatten(), nn.Linear(side * side, 1024), nn.LeakyReLU(LEAKY_SLOPE)]
        layers += [nn.Linear(1024, 1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map float N x 3 x 256 x 256, RGB, 0..1, to N x 1 probabilities of being real."""
        return self.layers(image)


def same_conv(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Return a 4x4 convolution with output size / stride ('same', padded as in TensorFlow)."""
    padding = (1, 1, 1, 1) if stride == 2 else (1, 2, 1, 2)
    return [nn.ZeroPad2d(padding), nn.Conv2d(inputs, outputs, 4, stride)]
