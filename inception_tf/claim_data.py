"""Records of the image sets that the claims are tried on, built by the project's own builder."""

import hashlib
import pathlib
import re
import subprocess
import sys
import tarfile

from inception_tf.errors import DataError

ARCHIVES = {"cifar10": "cifar10.tar.gz", "imagenette": "imagenette_small.tar"}  # claims.spec.DATA
_EVERY = 5  # test image of CIFAR-10 that is evaluated: 2,000 of 10,000
# Of the project, and of TensorFlow Datasets, which has a folder for each version.
_MADE = ("manifest.json", "dataset_info.json", "*/dataset_info.json")
_CIFAR10_NAME = re.compile(r"(train|test)/(\w+)/(\d+)\.(jpe?g|png)")


def records_of(name, *, data_dir, work_dir) -> pathlib.Path:
    """Directory of the records of an image set; builds them once.

    Args:
      name: a key of ARCHIVES.
      data_dir: holds the archive, or a folder of this name with records of the project or of
        TensorFlow Datasets; or is such a folder.
      work_dir: for the records.

    Raises:
      DataError: there is neither, or the archive cannot be used.
    """
    data_dir, work_dir = pathlib.Path(data_dir).expanduser(), pathlib.Path(work_dir)
    if _holds_records(data_dir / name):
        return data_dir / name
    if _holds_records(data_dir):
        # Records tell classes, not where they are from: those of another set would do as well.
        if name not in (data_dir.resolve().name, data_dir.resolve().parent.name):
            raise DataError(
                f"Records for this claim are of {name}, in a folder of that name.",
                received=str(data_dir),
                remedy="Give the directory above, or rename it.",
            )
        return data_dir
    out = work_dir / name
    if _holds_records(out):
        return out
    archive = data_dir / ARCHIVES[name]
    if not archive.is_file():
        raise DataError(
            "A claim needs its images.",
            received=f"neither {archive} nor records in {data_dir / name}",
            remedy="docs/results.md says how to get them; give --data_dir.",
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    if name == "cifar10":
        archive = _with_fewer_test_images(archive, work_dir / "cifar10_claims.tar")
    command = ["inception_tf.records", "build", "folder", str(archive), "--out", str(out)]
    status = subprocess.run([sys.executable, "-m", *command], check=False).returncode
    if status:
        raise DataError(
            "The records of a claim must be built.",
            received=f"exit status {status}",
            remedy="The builder's own message stands above.",
        )
    return out


def eval_params(place) -> list[str]:
    """Bindings for records whose images to evaluate are called 'test', as in TensorFlow Datasets'
    cifar10; all 10,000 are evaluated then."""
    place = pathlib.Path(place)
    has_validation = any(place.glob("**/*validation*"))
    return [] if has_validation else ["data.eval_split = 'test'"]


def mark_of(place) -> str:
    """Tells the records of a directory from others, by what their builder wrote of them."""
    place = pathlib.Path(place)
    digest = hashlib.sha256()
    for made in sorted(path for pattern in _MADE for path in place.glob(pattern)):
        digest.update(made.read_bytes())
    return digest.hexdigest()[:8]


def _holds_records(place):
    return any(next(place.glob(made), None) is not None for made in _MADE)


def _with_fewer_test_images(archive, out):
    """The archive with every fifth test image, by its number, called validation."""
    num_kept = {"train": 0, "test": 0}
    with tarfile.open(archive, "r|*") as source, tarfile.open(out, "w") as target:
        for member in source:
            found = _CIFAR10_NAME.search(member.name)
            if not member.isfile() or found is None:
                continue
            split, label, number, suffix = found.groups()
            if split == "test" and int(number) % _EVERY:
                continue
            num_kept[split] += 1
            content = source.extractfile(member)
            renamed = "train" if split == "train" else "validation"
            member.name = f"{renamed}/{label}/{number}.{suffix}"
            target.addfile(member, content)
    if not all(num_kept.values()):
        raise DataError(
            "The archive of CIFAR-10 holds train/<class>/<number>.jpg and test/... .",
            received=f"{archive} with {num_kept}",
            remedy="docs/results.md says how to get it.",
        )
    return out
