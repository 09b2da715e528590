"""Draws the crops of evaluation protocols: where they lie in an image, and what is cut.

    python tools/draw_crops.py --crops 10 12 144 --out=docs/images
    python tools/draw_crops.py --image=photo.jpg --crops 144_soeaver --out=pictures

Without an image it takes scikit-learn's china.jpg (CC BY 2.0, danielbuechele).
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from inception_tf.data import image
from inception_tf.errors import UserError
from inception_tf.evaluation import crop_picture, crops


def default_image():
    try:
        import sklearn.datasets
    except ImportError:
        raise SystemExit("Give --image, or: pip install -e '.[digits]'") from None
    return pathlib.Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image", type=pathlib.Path, help="an image file")
    parser.add_argument("--crops", nargs="+", default=["10", "12", "144"], help="of several crops")
    parser.add_argument("--image_px", type=int, default=299, help="the network's input")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the pictures")
    args = parser.parse_args()
    try:
        protocols = [
            crops.protocol(name, height_px=args.image_px, width_px=args.image_px)
            for name in args.crops
        ]
    except UserError as error:
        parser.error(str(error))
    if any(protocol.num_crops == 1 for protocol in protocols):
        parser.error("one crop has no picture here: show_batch draws it")
    path = args.image or default_image()
    pixels = image.decode_whole(path.read_bytes()).numpy()
    args.out.mkdir(parents=True, exist_ok=True)
    for protocol in protocols:
        figure = crop_picture.draw_protocol(pixels, protocol, recipe=image.EvaluationCrop())
        out = args.out / f"crops_{protocol.name}.jpg"
        figure.savefig(out, pil_kwargs={"quality": 75, "optimize": True})
        print(out)


if __name__ == "__main__":
    sys.exit(main())
