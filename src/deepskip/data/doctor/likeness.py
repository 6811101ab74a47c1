"""Which pictures are the same one, resized or compressed anew: a difference hash, then a look at thumbnails.

The hash is dHash (Krawetz 2013, "Kind of Like That", hackerfactor.com/blog/?/archives/529): for each pair of
neighbours in a tiny grey copy, whether brightness rises. His has 64 bits, from left to right; ours has 64 more,
from top to bottom. A hash alone mistakes pictures of like layout for each other, so those it calls near are
compared as thumbnails.

On 400 photographs of 160 pixels, halving, doubling and JPEG at quality 40 changed at most 16 bits and 2.3 grey
levels (root mean square over thumbnails; 99 of 100 at most 8 bits and 1.9), a third of the size at quality 70
at most 10 bits and 6.4. Of the 79,800 pairs of different ones none came nearer than 18 bits or 23 levels.
Cropping, mirroring and shifting are not seen through: of the 3.3% of CIFAR-10's test pictures that are, to the
eye, in its training set too (Barz and Denzler 2020, arXiv:1902.00423), 12 are as near as this.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

BITS = 128
NEAR_BITS = 11
"""Bits in which two hashes of one picture may differ."""
NEAR_LEVELS = 10.0
"""Root mean square, in 256 levels, by which two thumbnails of one picture may differ."""
NEAR_CONTRAST = 0.25
"""The same, as a part of the thumbnail's own contrast: what there is in a pale picture is pale too."""
SIDE = 16
"""A thumbnail's height and width: enough to tell pictures apart, little enough to keep a million in memory."""

Hashes = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.uint8]
Members = npt.NDArray[np.int64]

_COMPARED = 1 << 20
_LOOKED_AT = 1 << 13


def dhash(image: Image.Image) -> bytes:
    """Return the 16 bytes of a picture's difference hash."""
    grey = image.convert("L")
    across = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR))
    down = np.asarray(grey.resize((8, 9), Image.Resampling.BILINEAR))
    return np.packbits([across[:, 1:] > across[:, :-1], down[1:] > down[:-1]]).tobytes()


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an RGB picture as uint8 [SIDE, SIDE, 3], antialiased, stretched where it is not square."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def near_groups(hashes: Hashes, thumbnails: Thumbnails) -> list[Members]:
    """Return the groups of two or more that are one picture, each ascending, the smallest number first.

    `hashes` is uint64 [n, 2], `thumbnails` uint8 [n, SIDE, SIDE, 3]. Hashes that differ in at most `NEAR_BITS`
    bits are equal in at least one of `NEAR_BITS` + 1 bands of them, so only pictures that share a band are
    compared: none is missed, and far fewer than all pairs are looked at. Likeness is taken to pass on: frames
    of a film that are near from one to the next are one group.
    """
    if not len(hashes):
        return []
    groups = _Groups(len(hashes))
    flat = np.ascontiguousarray(thumbnails).reshape(len(thumbnails), -1)
    limits = np.minimum(NEAR_LEVELS, NEAR_CONTRAST * flat.std(axis=1, dtype=np.float32))
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, BITS // 8), axis=1)
    for band in np.array_split(np.arange(BITS), NEAR_BITS + 1):
        for members in _equal(bits[:, band] @ (1 << np.arange(len(band)))):
            for one, other in _near_hashes(members, hashes):
                apart = (
                    groups.names[one] != groups.names[other]
                )  # of a thousand frames alike, most are known to be
                one, other = one[apart], other[apart]
                difference = flat[one].astype(np.float32) - flat[other]
                levels = np.sqrt((difference * difference).mean(axis=1))
                alike = levels <= np.minimum(limits[one], limits[other])
                groups.join(one[alike], other[alike])
    return _equal(groups.names)


def _near_hashes(members: Members, hashes: Hashes) -> Iterator[tuple[Members, Members]]:
    """Yield pairs among `members` whose hashes are near, some thousands at a time."""
    own = hashes[members]
    rows = max(1, _COMPARED // len(members))
    for start in range(0, len(members), rows):
        some, later = own[start : start + rows], own[start + 1 :]
        differing = np.bitwise_count(some[:, :1] ^ later[:, 0])
        differing += np.bitwise_count(some[:, 1:] ^ later[:, 1])
        left, right = np.nonzero(differing <= NEAR_BITS)
        left, right = left[right >= left], right[right >= left]  # each pair once
        for at in range(0, len(left), _LOOKED_AT):
            now = slice(at, at + _LOOKED_AT)
            yield members[start + left[now]], members[start + 1 + right[now]]


def _equal(keys: Members) -> list[Members]:
    """Return the places of every value that `keys` holds twice or more, ascending."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    groups = np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)
    return [group for group in groups if len(group) > 1]


class _Groups:
    """Who belongs together: a name for each, its group's smallest number."""

    def __init__(self, count: int) -> None:
        self.names: Members = np.arange(count)

    def join(self, ones: Members, others: Members) -> None:
        """Make one group of each pair's two."""
        names = self.names
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            low, high = sorted((self._first(one), self._first(other)))
            names[high] = low
        while (names[names] != names).any():
            names[:] = names[names]

    def _first(self, one: int) -> int:
        while self.names[one] != one:
            one = int(self.names[one])
        return one
