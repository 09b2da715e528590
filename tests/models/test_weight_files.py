"""Files of weights: what each container is recognised by, and how damaged ones are refused."""

import gzip
import pickle
import sys
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from inception_tf.errors import ConfigError, DataError
from inception_tf.models.weights.files import CHECKPOINT, HDF5, SAFETENSORS, open_tensors

ARRAYS = {
    "Scope/layer/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "Scope/layer/biases": np.linspace(-1, 1, 2000, dtype=np.float32),
}


def write_checkpoint(prefix, *, version=tf.compat.v1.train.SaverDef.V2):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in ARRAYS.items():
            tf.compat.v1.get_variable(name, initializer=array, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(write_version=version).save(session, str(prefix))


def assert_holds(tensors, arrays):
    assert sorted(tensors) == sorted(arrays)
    assert len(tensors) == len(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name], array)


@pytest.mark.parametrize(
    "given", ["m.ckpt-7", "m.ckpt-7.index", "m.ckpt-7.meta", "m.ckpt-7.data-00000-of-00001", "."]
)
def test_a_v2_checkpoint_is_found_by_any_of_its_names(tmp_path, given):
    write_checkpoint(tmp_path / "m.ckpt-7")
    container, tensors, attribute = open_tensors(tmp_path / given)
    assert (container, attribute) == (CHECKPOINT, None)
    assert_holds(tensors, ARRAYS)


@pytest.mark.parametrize("given", ["inception_v3.ckpt", "inception_v3.ckpt.meta", "."])
def test_a_v1_checkpoint_is_one_file(tmp_path, given):
    # The released checkpoints are of this kind.
    write_checkpoint(tmp_path / "inception_v3.ckpt", version=tf.compat.v1.train.SaverDef.V1)
    assert not (tmp_path / "inception_v3.ckpt.index").exists()
    container, tensors, _ = open_tensors(tmp_path / given)
    assert container == CHECKPOINT
    assert_holds(tensors, ARRAYS)


def test_a_directory_of_checkpoints_may_have_been_moved(tmp_path):
    (tmp_path / "there").mkdir()
    write_checkpoint(tmp_path / "there" / "m.ckpt-7")
    state = tmp_path / "there" / "checkpoint"
    state.write_text('model_checkpoint_path: "/data/old/place/m.ckpt-7"\n')
    (tmp_path / "there").rename(tmp_path / "here")
    assert_holds(open_tensors(tmp_path / "here")[1], ARRAYS)


def test_a_directory_without_checkpoint_is_an_error(tmp_path):
    with pytest.raises(DataError, match="`checkpoint` file"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("named", [".", "..", "/", "../..", "here/..", "loop", "inner"])
def test_a_checkpoint_file_names_files_beside_it(tmp_path, named):
    here = tmp_path / "here"
    (here / "inner").mkdir(parents=True)
    write_checkpoint(tmp_path / "m.ckpt-7")  # with a `checkpoint` file above
    write_checkpoint(tmp_path / "here")  # beside the directory, not in it
    for directory in (here, here / "inner"):
        (directory / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    (here / "loop").symlink_to(here)
    with pytest.raises(DataError, match=f"its `checkpoint` file.*{here}"):
        open_tensors(here)
    (here / "loop").unlink()
    (here / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=f"its `checkpoint` file.*{here}"):
        open_tensors(here)
    with pytest.raises(DataError, match="loop"):
        open_tensors(here / "loop")


def test_a_name_that_no_file_can_have_is_an_error(tmp_path):
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{"x" * 300}"\n')
    for path in (tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match=str(tmp_path)):
            open_tensors(path)


def test_the_metadata_of_safetensors_may_say_what_it_is(tmp_path):
    save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"inception_tf": "{}", "format": "tf"})
    save_file(ARRAYS, tmp_path / "b.safetensors", metadata={"format": "pt"})
    save_file(ARRAYS, tmp_path / "c.safetensors")
    found = [open_tensors(tmp_path / f"{name}.safetensors")[2] for name in "abc"]
    assert found == ["{}", None, None]


def test_a_checkpoint_cut_short_is_an_error_that_names_it(tmp_path):
    write_checkpoint(tmp_path / "m.ckpt")
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    _, tensors, _ = open_tensors(tmp_path / "m.ckpt")
    with pytest.raises(DataError, match="m.ckpt, tensor Scope/layer"):
        [tensors[name] for name in tensors]
    data.unlink()
    with pytest.raises(DataError, match="m.ckpt"):
        [array for array in open_tensors(tmp_path / "m.ckpt")[1].values()]


def test_a_damaged_byte_of_a_checkpoint_is_an_error(tmp_path):
    write_checkpoint(tmp_path / "m.ckpt")
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[50] ^= 1
    data.write_bytes(content)
    with pytest.raises(DataError, match="whole"):
        [array for array in open_tensors(tmp_path / "m.ckpt")[1].values()]


def test_safetensors_are_known_by_their_bytes(tmp_path):
    path = tmp_path / "model.bin"
    save_file(ARRAYS, path)
    container, tensors, _ = open_tensors(path)
    assert container == SAFETENSORS
    assert_holds(tensors, ARRAYS)


def test_safetensors_cut_short_are_an_error(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="whole.*model.safetensors"):
        open_tensors(path)


def test_without_the_package_the_message_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file(ARRAYS, path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConfigError, match=r"pip install.*\[timm\]"):
        open_tensors(path)


def test_hdf5_is_known_by_its_bytes_and_names_layers(tmp_path):
    path = tmp_path / "weights"
    with h5py.File(path, "w") as file:
        file["conv2d_1/conv2d_1/kernel:0"] = ARRAYS["Scope/layer/weights"]
        file["optimizer_weights/x/iterations:0"] = np.int64(3)
    container, tensors, attribute = open_tensors(path)
    assert (container, attribute) == (HDF5, None)
    assert_holds(
        tensors,
        {
            "conv2d_1/kernel": ARRAYS["Scope/layer/weights"],
            "/optimizer_weights/x/iterations:0": np.int64(3),
        },
    )


def test_hdf5_cut_short_is_an_error(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["conv2d/kernel"] = np.zeros(10_000)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match="whole.*weights.h5"):
        open_tensors(path)


def test_links_of_hdf5_are_not_followed(tmp_path):
    secret, path = tmp_path / "secret.h5", tmp_path / "weights.h5"
    with h5py.File(secret, "w") as file:
        file["layer/kernel"] = np.ones(3)
    with h5py.File(path, "w") as file:
        file["a/kernel"] = np.zeros(3)
        file["b"] = h5py.ExternalLink(str(secret), "/layer")
        file["c"] = h5py.SoftLink("/a")
    assert sorted(open_tensors(path)[1]) == ["a/kernel"]


def test_data_of_hdf5_in_another_file_is_refused(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("a/kernel", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)])
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "external.h5"), "a/kernel", (3,))
        file.create_virtual_dataset("a/kernel", layout)
    for name in ("external.h5", "virtual.h5"):
        with pytest.raises(DataError, match="another file"):
            open_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": (2**20, 2**20), "dtype": "f4", "chunks": (2**10, 2**10)},  # a few bytes on disk
        {"shape": (3,), "dtype": h5py.string_dtype()},
    ],
)
def test_hdf5_that_holds_no_numbers_or_too_many_is_refused(tmp_path, fields):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/kernel", **fields)
    with pytest.raises(DataError, match="2 GiB"):
        open_tensors(path)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["one/conv2d/kernel:0"] = np.ones(3)
        file["two/conv2d/kernel:0"] = np.ones(3)
    with pytest.raises(DataError, match="one/conv2d.*two/conv2d"):
        open_tensors(tmp_path / "w.h5")


class Bomb:
    """Would leave a mark if it were ever unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


def _write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.write_text("weights\n"), "8 bytes of something else"),
        (lambda path: path.write_bytes(gzip.compress(b"x")), "gzip.*Unpack"),
        (_write_zip, "zip.*safetensors in PyTorch"),
    ],
)
@pytest.mark.parametrize("name", ["weights.h5", "weights.safetensors", "model.ckpt"])
def test_other_files_are_refused_whatever_they_are_called(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        open_tensors(tmp_path / name)


def test_a_pickle_is_refused_and_not_opened(tmp_path):
    mark = tmp_path / "mark"
    for name in ("model.pth", "model.safetensors", "model.h5"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(str(mark))))
        with pytest.raises(DataError, match="pickle.*safetensors"):
            open_tensors(tmp_path / name)
    assert not mark.exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent.h5"):
        open_tensors(tmp_path / "absent.h5")
