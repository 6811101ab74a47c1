"""What is known of the built-in data sets before any file is read: classes, sizes, layouts, origins.

digits: scikit-learn's copy of the UCI test set of optical digits. Fashion-MNIST: Xiao, Rasul, Vollgraf 2017.
CIFAR-10 and CIFAR-100: Krizhevsky 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from deepskip.data.layouts import Arrays, read_cifar_binary, read_cifar_pickle, read_idx
from deepskip.data.variation import Augment
from deepskip.describe.preprocessing import Colour, Preprocessing

Part = Literal["train", "val"]


@dataclass(frozen=True)
class Layout:
    """One way a data set's files are laid out on a disk."""

    folders: tuple[str, ...]
    """Where the files may be: below the data folder, or absolute."""
    files: dict[Part, tuple[str, ...]]
    """Each split's files, in the order they are read; each may also end in `.gz`."""
    read: Callable[..., Arrays]
    """A reader from layouts.py: `read(paths, total=pictures, classes=count)`."""


@dataclass(frozen=True)
class Download:
    """An original file on the network, and the SHA-256 it must have."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Published:
    """What is known of a built-in data set before any file is read."""

    classes: tuple[str, ...]
    size: int
    colour: Colour
    augment: Augment
    mean: tuple[float, ...]
    """Of each channel over the training images, on the scale 0 to 1; recomputed by a test."""
    std: tuple[float, ...]
    pictures: dict[Part, int]
    layouts: tuple[Layout, ...] = ()
    """The first one's first folder is where a download goes; digits come with scikit-learn and need none."""
    downloads: tuple[Download, ...] = ()

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture file becomes an input like these."""
        size, colour = self.size, self.colour
        return Preprocessing(size=size, resize=size, colour=colour, mean=self.mean, std=self.std)


def _names(text: str, between: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(between))


CIFAR10_CLASSES = _names("airplane automobile bird cat deer dog frog horse ship truck")
CIFAR100_CLASSES = _names(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
    leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
    otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """
)
FASHION_CLASSES = _names("t-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot", ",")
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

PUBLISHED: dict[str, Published] = {
    "digits": Published(
        classes=tuple("0123456789"),
        size=8,
        colour="L",
        augment="none",
        mean=(0.3054,),
        std=(0.3760,),
        pictures={"train": 1437, "val": 360},
    ),
    "fashion-mnist": Published(
        classes=FASHION_CLASSES,
        size=28,
        colour="L",
        augment="crop_flip",
        mean=(0.2860,),
        std=(0.3530,),
        pictures={"train": 60_000, "val": 10_000},
        layouts=(
            Layout(
                # Ours, torchvision's, and that of Debian's package dataset-fashion-mnist.
                ("fashion-mnist", "FashionMNIST/raw", "/usr/share/datasets/fashion-mnist", ""),
                {
                    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
                    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
                },
                partial(read_idx, size=28),
            ),
        ),
        downloads=(
            Download(
                FASHION_URL + "train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            Download(
                FASHION_URL + "train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            Download(
                FASHION_URL + "t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            Download(
                FASHION_URL + "t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    ),
    "cifar10": Published(
        classes=CIFAR10_CLASSES,
        size=32,
        colour="RGB",
        augment="crop_flip",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        pictures={"train": 50_000, "val": 10_000},
        layouts=(
            Layout(
                ("cifar-10-batches-bin", ""),
                {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "val": ("test_batch.bin",)},
                partial(read_cifar_binary, label_bytes=1),
            ),
            Layout(
                ("cifar-10-batches-py", ""),
                {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "val": ("test_batch",)},
                partial(read_cifar_pickle, label_key="labels"),
            ),
        ),
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
    ),
    "cifar100": Published(
        classes=CIFAR100_CLASSES,
        size=32,
        colour="RGB",
        augment="crop_flip",
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        pictures={"train": 50_000, "val": 10_000},
        layouts=(
            Layout(
                ("cifar-100-binary", ""),
                {"train": ("train.bin",), "val": ("test.bin",)},
                partial(read_cifar_binary, label_bytes=2),  # the coarse label, then the fine one
            ),
            Layout(
                ("cifar-100-python", ""),
                {"train": ("train",), "val": ("test",)},
                partial(read_cifar_pickle, label_key="fine_labels"),
            ),
        ),
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
    ),
}
