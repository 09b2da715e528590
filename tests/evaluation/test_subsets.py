"""Which images count: hand-made lists, damaged ones, and the official ones where they are."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from inception_tf.errors import ConfigError, DataError
from inception_tf.evaluation import official_lists, scores, subsets
from inception_tf.evaluation.outcomes import outcomes_of

META = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data" / "imagenet_meta"
NUMBERS = range(1, 50_001)


def name_of(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


ALL_NAMES = [name_of(number) for number in NUMBERS]


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    """A directory of made-up lists in the official form: every 28th and every 15th image."""
    folder = tmp_path_factory.mktemp("meta")
    blacklist = [28 * place for place in range(1, 1763)]
    text = "".join(f"{number}\n" for number in blacklist)
    (folder / "ILSVRC2014_clsloc_validation_blacklist.txt").write_text(text)
    empty = set(range(15, 15 * 3163 + 1, 15))
    real = [[] if n in empty else [n % 1000, (n + 1) % 1000] for n in NUMBERS]
    (folder / "real.json").write_text(json.dumps(real))
    return folder


def test_all_images_count_and_need_no_names(meta):
    (subset,) = subsets.open_subsets(["all"])
    assert subset.mask([""] * 3, [0, 1, 2]).tolist() == [True] * 3


def test_the_blacklist_leaves_48238_in_whatever_order_the_records_are(meta):
    (subset,) = subsets.open_subsets(["without_blacklist"], imagenet_meta_dir=str(meta))
    order = np.random.default_rng(0).permutation(50_000)
    mask = subset.mask(np.array(ALL_NAMES)[order], np.arange(50_000))
    assert mask.sum() == 48_238
    assert sorted((order[~mask] + 1).tolist()) == [28 * place for place in range(1, 1763)]


def test_a_part_of_the_validation_set_is_masked_alike(meta):
    (subset,) = subsets.open_subsets(["without_blacklist"], imagenet_meta_dir=str(meta))
    names = [name_of(56), "n01440764/" + name_of(57), name_of(50_000)]
    assert subset.mask(names, [0, 1, 2]).tolist() == [False, True, True]
    with pytest.raises(DataError, match="none of 1"):
        subset.mask([name_of(28)], [0])


def test_real_labels_belong_to_the_image_of_their_number(meta):
    (real,) = subsets.open_subsets(["real"], imagenet_meta_dir=str(meta))
    names = [name_of(n) for n in (30, 1, 50_000, 29)]
    assert real.labels_of(names) == [(), (1, 2), (0, 1), (29, 30)]
    assert sum(map(bool, real.labels_of(ALL_NAMES))) == 46_837


@pytest.mark.parametrize("name", ["without_blacklist", "real"])
@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["", ""], "2 other names of 2, such as '', ''"),
        ([name_of(1), "dog.jpg"], "1 other name of 2, such as 'dog.jpg'"),
        ([name_of(0)], "other name"),
        ([name_of(50_001)], "other name"),
        ([name_of(1) + ".png"], "other name"),
        ([name_of(7), name_of(8), name_of(7)], "number 7"),
    ],
)
def test_official_subsets_need_official_names(meta, name, names, word):
    (subset,) = subsets.open_subsets([name], imagenet_meta_dir=str(meta))
    with pytest.raises(DataError, match=word):
        if name == "real":
            subset.labels_of(names)
        else:
            subset.mask(names, range(len(names)))


def test_a_missing_list_says_where_it_comes_from(tmp_path):
    for name, origin in (("without_blacklist", "image-net.org"), ("real", "reassessed-imagenet")):
        with pytest.raises(ConfigError, match=origin):
            subsets.open_subsets([name])
        with pytest.raises(ConfigError, match=origin):
            subsets.open_subsets([name], imagenet_meta_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="image-net.org"):
        subsets.open_subsets(["without_blacklist"], blacklist=str(tmp_path / "nowhere"))


def test_single_files_go_before_the_directory(meta, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("".join(f"{n}\n" for n in range(1, 1763)))
    (subset,) = subsets.open_subsets(
        ["without_blacklist"], imagenet_meta_dir=str(meta), blacklist=str(other)
    )
    assert subset.path == str(other)
    assert subset.mask([name_of(1), name_of(1763)], [0, 1]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda lines: lines[:-1], "1,761"),
        (lambda lines: [*lines[:-1], lines[0]], "'28' as entry 1,762"),
        (lambda lines: ["0", *lines[1:]], "'0' as entry 1 "),
        (lambda lines: [*lines[:-1], "50001"], "'50001'"),
        (lambda lines: [*lines[:3], "n01440764", *lines[4:]], "'n01440764' as entry 4"),
        (lambda lines: [name_of(28), *lines[1:]], "as entry 1 "),
        (lambda lines: ["9" * 5000, *lines[1:]], "as entry 1 "),
        (lambda lines: [], "Received: 0 in"),
    ],
)
def test_another_file_is_no_blacklist(meta, tmp_path, change, word):
    lines = (meta / official_lists.BLACKLIST_NAMES[0]).read_text().split()
    path = tmp_path / "blacklist.txt"
    path.write_text("\n".join(change(lines)))
    with pytest.raises(DataError, match=word):
        official_lists.read_blacklist(path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda lists: lists[:-1], "49,999 entries"),
        (lambda lists: {"labels": lists[:3]}, "dict"),
        (lambda lists: [[1000], *lists[1:]], "image 1 "),
        (lambda lists: [*lists[:-1], [3, 3]], r"\[3, 3\] of image 50,000"),
        (lambda lists: [*lists[:9], 5, *lists[10:]], "5 of image 10 "),
        (lambda lists: [[True], *lists[1:]], r"\[true\] of image 1 "),
        (lambda lists: [[], *lists[1:]], "46,836"),
    ],
)
def test_another_file_is_no_real_labels(meta, tmp_path, change, word):
    path = tmp_path / "real.json"
    path.write_text(json.dumps(change(json.loads((meta / "real.json").read_text()))))
    with pytest.raises(DataError, match=word):
        official_lists.read_real_labels(path)


@pytest.mark.parametrize("text", ["", "[[1], [2", "[" * 100_000, "<html>"])
def test_what_is_no_json_is_no_real_labels(tmp_path, text):
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(DataError, match="must be JSON"):
        official_lists.read_real_labels(tmp_path / "real.json")


def test_a_list_holds_file_names_or_record_ids(tmp_path):
    by_name, by_id = tmp_path / "hard.txt", tmp_path / "ids"
    by_name.write_text("# the hard ones\nb.jpg\n\n  d.jpg  \r\n")
    by_id.write_text("3\n0\n")
    named, numbered = subsets.open_subsets([str(by_name), str(by_id)])
    assert (named.name, numbered.name) == ("hard.txt", "ids")
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert named.mask(names, range(4)).tolist() == [False, True, False, True]
    assert numbered.mask([""] * 4, np.array([3, 2, 1, 0])).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("text", "names", "word"),
    [
        ("a.jpg\nz.jpg", ["a.jpg", "b.jpg"], "1 entry of .* such as z.jpg"),
        ("a.jpg", ["", ""], "2 records without a file name"),
        ("a.jpg", ["a.jpg", "a.jpg"], "2 records for a.jpg"),
        ("0\n2", ["a.jpg", "b.jpg"], "1 entry of .* such as 2"),
    ],
)
def test_a_list_must_fit_the_data(tmp_path, text, names, word):
    path = tmp_path / "list.txt"
    path.write_text(text)
    (subset,) = subsets.open_subsets([str(path)])
    with pytest.raises(DataError, match=word):
        subset.mask(names, range(len(names)))


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "none"), (b"# no\n\n", "none"), (b"a\nb\na\n", "such as a"), (b"1\n01\n", "such as 1")],
)
def test_a_list_of_nothing_or_of_one_twice_is_refused(tmp_path, content, word):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=word):
        subsets.read_list(tmp_path / "list.txt")


def test_what_is_no_subset_is_refused(meta, tmp_path):
    with pytest.raises(ConfigError, match="'48238'"):
        subsets.open_subsets(["48238"])
    with pytest.raises(ConfigError, match="all twice"):
        subsets.open_subsets(["all", "all"])
    (tmp_path / "real").write_text("1\n")
    with pytest.raises(ConfigError, match="called like another"):
        subsets.open_subsets([str(tmp_path / "real")])
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="readable text"):
        subsets.open_subsets([str(tmp_path / "bytes.txt")])


@pytest.mark.skipif(not META.is_dir(), reason=f"{META} is absent: official lists not read")
def test_the_official_lists_have_their_published_sizes():
    kept, real = subsets.open_subsets(["without_blacklist", "real"], imagenet_meta_dir=str(META))
    mask = kept.mask(ALL_NAMES, range(50_000))
    assert mask.sum() == 48_238
    assert [number for number in NUMBERS if not mask[number - 1]][:1] == [36]
    real_labels = real.labels_of(ALL_NAMES)
    assert sum(map(bool, real_labels)) == 46_837
    wnids = (META / "imagenet_lsvrc_2015_synsets.txt").read_text().split()
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    truth = (META / "imagenet_2012_validation_synset_labels.txt").read_text().split()
    labels = np.array([label_of[wnid] for wnid in truth])
    # A network that always gives the original label is right under ReaL for 42,164 images, with
    # a background output too.
    one = outcomes_of(np.eye(1001), np.arange(1001))
    for first in (0, 1):
        outcomes = dataclasses.replace(
            one,
            labels=labels + first,
            predicted=labels + first,
            num_outputs=1000 + first,
            background=bool(first),
        )
        found = scores.real_score(outcomes, real_labels)
        assert (found.num_examples, found.top1.count) == (46_837, 42_164)
        assert found.num_left_out == 3_163


@pytest.mark.parametrize("name", ["blacklist", "real_labels", "imagenet_meta_dir"])
def test_a_list_of_a_subset_that_nobody_wants_is_refused(name):
    with pytest.raises(ConfigError, match="of a subset that is wanted"):
        subsets.open_subsets(["all"], **{name: "somewhere"})
