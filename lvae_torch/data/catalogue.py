"""Image shape and levels of every known dataset, for cfgs whose dump is not made yet. ``data_scripts`` makes them."""

BINARY, GREY, COLOUR, CONTINUOUS = 2, 256, 256, 0  # levels of a pixel

from lvae_torch.data.shapes import ImageShape

CATALOGUE: dict[str, tuple[ImageShape, int]] = {
    "binarized_mnist": ((1, 28, 28), BINARY),
    "binarized_mnist_valid": ((1, 28, 28), BINARY),
    "mnist": ((1, 28, 28), GREY),
    "mnist_pad32": ((1, 32, 32), GREY),
    "mnist_efficient_vdvae": ((1, 32, 32), GREY),
    "fashion_mnist": ((1, 28, 28), GREY),
    "omniglot": ((1, 28, 28), GREY),
    "omniglot_valid": ((1, 28, 28), GREY),
    "omniglot_pad32": ((1, 32, 32), GREY),
    "omniglot_full": ((1, 105, 105), BINARY),
    "omniglot_full_small": ((1, 105, 105), BINARY),
    "small_norb": ((1, 96, 96), GREY),
    "small_norb32": ((1, 32, 32), GREY),
    "svhn": ((3, 32, 32), COLOUR),
    "svhn_extra": ((3, 32, 32), COLOUR),
    "cifar10": ((3, 32, 32), COLOUR),
    "cifar10_efficient_vdvae": ((3, 32, 32), COLOUR),
    "cifar10_vdvae": ((3, 32, 32), COLOUR),
    "celeba64_addtt": ((3, 64, 64), COLOUR),
    "celeba64_nvae": ((3, 64, 64), COLOUR),
    "celeba64_efficient_vdvae": ((3, 64, 64), COLOUR),
    "celebahq256": ((3, 256, 256), COLOUR),
    "celebahq1024": ((3, 1024, 1024), COLOUR),
    "ffhq256": ((3, 256, 256), COLOUR),
    "ffhq256_vdvae": ((3, 256, 256), COLOUR),
    "ffhq1024": ((3, 1024, 1024), COLOUR),
    "ffhq1024_vdvae": ((3, 1024, 1024), COLOUR),
    "imagenet32": ((3, 32, 32), COLOUR),
    "imagenet64": ((3, 64, 64), COLOUR),
    "imagenet32_oord": ((3, 32, 32), COLOUR),
    "imagenet32_oord_vdvae": ((3, 32, 32), COLOUR),
    "imagenet64_oord": ((3, 64, 64), COLOUR),
    "imagenet64_oord_vdvae": ((3, 64, 64), COLOUR),
    "multi_dsprites": ((3, 64, 64), BINARY),
    "multi_dsprites_1": ((3, 64, 64), BINARY),
    "quickstart_sprites": ((3, 28, 28), BINARY),
    "multi_dsprites_published": ((3, 64, 64), BINARY),
    "multi_mnist": ((1, 64, 64), BINARY),
    "multi_mnist_1": ((1, 64, 64), BINARY),
    "multi_mnist_published": ((1, 64, 64), BINARY),
    "toy2d_1a": ((2, 1, 1), CONTINUOUS),
    "toy2d_1b": ((2, 1, 1), CONTINUOUS),
    "toy2d_2a": ((2, 1, 1), CONTINUOUS),
    "toy2d_2b": ((2, 1, 1), CONTINUOUS),
    "deepul_cifar10": ((3, 32, 32), COLOUR),
    "deepul_svhn": ((3, 32, 32), COLOUR),
    "deepul_mnist": ((1, 28, 28), GREY),
}
"""Image shape (C, H, W) and levels, by name of the dump."""

OWN: dict[str, tuple[ImageShape, int]] = {
    "own_images": ((3, 64, 64), COLOUR),
    "own_images_128": ((3, 128, 128), COLOUR),
    "own_images_256": ((3, 256, 256), COLOUR),
}
"""The same of a person's own pictures, for the cfgs to begin with in ``egs``; a dump of another size counts first."""

CODES: dict[str, tuple[ImageShape, int]] = {
    "vqvae_cifar10_codes": ((1, 8, 8), 128),
    "vqvae_svhn_codes": ((1, 8, 8), 128),
    "vqvae_cifar10_small_codes": ((1, 8, 8), 128),
}
"""The same for dumps of codes: the run named before ``_codes`` writes them in encoding mode."""
