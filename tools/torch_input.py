"""The training input as PyTorch users write it, for tools/bench_input.py: DataLoader and Pillow."""

import io
import random

import torch
from PIL import Image, ImageEnhance

FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.NEAREST,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
)


class Photos(torch.utils.data.Dataset):
    """Augmented photos from JPEG bytes in memory, with slim's magnitudes and Pillow's operations.

    Args:
      jpegs: JPEG files as bytes.
      side_px: side of the result.
    """

    def __init__(self, jpegs, side_px):
        self._jpegs = jpegs
        self._side_px = side_px

    def __len__(self):
        return len(self._jpegs)

    def __getitem__(self, position):
        photo = Image.open(io.BytesIO(self._jpegs[position])).convert("RGB")
        box = _draw_box(photo.width, photo.height)
        size = (self._side_px, self._side_px)
        photo = photo.resize(size, random.choice(FILTERS), box=box)
        if random.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        changes = [_brighten, _saturate, _contrast, _turn_hue]
        random.shuffle(changes)
        for change in changes:
            photo = change(photo)
        levels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8)
        levels = levels.view(self._side_px, self._side_px, 3).permute(2, 0, 1)
        return levels.to(torch.float32).div_(127.5).sub_(1.0)


def make_loader(jpegs, *, side_px, batch, num_workers):
    """An iterable of batches, float32 [batch, 3, side_px, side_px], whose workers stay."""
    return torch.utils.data.DataLoader(
        Photos(jpegs, side_px),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=True,
        multiprocessing_context="spawn",  # a fork of a process with TensorFlow's threads hangs
    )


def _draw_box(width, height):
    """A crop of 5 to 100% of the area, 0.75 to 1.33 wide, as (left, top, right, bottom)."""
    for _ in range(100):
        area = random.uniform(0.05, 1.0) * width * height
        ratio = random.uniform(0.75, 1.33)
        wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            left, top = random.randint(0, width - wide), random.randint(0, height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height


def _brighten(photo):
    return ImageEnhance.Brightness(photo).enhance(random.uniform(1 - 32 / 255, 1 + 32 / 255))


def _saturate(photo):
    return ImageEnhance.Color(photo).enhance(random.uniform(0.5, 1.5))


def _contrast(photo):
    return ImageEnhance.Contrast(photo).enhance(random.uniform(0.5, 1.5))


def _turn_hue(photo):
    """As torchvision's adjust_hue of a Pillow image: the H plane, modulo 256."""
    hue, saturation, value = photo.convert("HSV").split()
    turn = round(random.uniform(-0.2, 0.2) * 255)
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
