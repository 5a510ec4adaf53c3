"""Layouts on tiny folders: pairs are found, odd files refused, counts reported; val by scene, test never in train."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from blurdm.core.errors import InputError
from blurdm.data.layouts import LAYOUTS, PairFiles, count_report, scan
from blurdm.data.pairs import write_image
from blurdm.data.splits import build_index, folder_digest, split_index

PIXELS = np.zeros((16, 18, 3), np.uint8)
FORMS = [
    ("gopro", "{split}/GOPR{scene}/{blur}/00{name}.png", "blur sharp", True),
    ("gopro", "GOPRO_Large/{split}/GOPR{scene}/{blur}/00{name}.png", "blur sharp", True),
    ("gopro", "{split}/{blur}/GOPR03{scene}_07_00-0000{name}.png", "input target", True),
    ("gopro", "{split}/GoPro/{blur}/GOPR03{scene}_07_00-0000{name}.png", "input target", True),
    ("hide", "test/{blur}/{scene}{name}.png", "input target", False),
    ("hide", "{blur}/{scene}{name}.png", "input target", False),
    ("hide", "test/HIDE/{blur}/{scene}{name}.png", "input target", False),
    ("realblur_j", "Realblur_J/{split}/{blur}/scene{scene}/{name}.png", "blur sharp", True),
    ("realblur_j", "{split}/{blur}/scene{scene}/{name}.png", "blur sharp", True),
    ("realblur_r", "Realblur_R/{split}/{blur}/scene{scene}/{name}.png", "blur sharp", True),
    ("realblur_r", "{split}/{blur}/{scene}{name}.png", "input target", False),
    ("realblur_j", "test/RealBlur_J/{blur}/{scene}{name}.png", "input target", False),
    ("folders", "{split}/{blur}/{scene}/{name}.png", "blur sharp", True),
    ("folders", "{blur}/{scene}/{name}.png", "blur sharp", False),
    ("folders", "{blur}/{name}.png", "blur sharp", False),
]


def make(root: Path, form: str, kinds: str, scenes: str = "ab", names: str = "12") -> None:
    for kind in kinds.split():
        for split in ("train", "test"):
            for scene in scenes:
                for name in names:
                    write_image(root / form.format(split=split, scene=scene, name=name, blur=kind), PIXELS)


@pytest.mark.parametrize(("layout", "form", "kinds", "has_scenes"), FORMS)
def test_every_form_is_found(tmp_path: Path, layout: str, form: str, kinds: str, has_scenes: bool) -> None:
    make(tmp_path, form, kinds)
    (tmp_path / "notes.txt").write_text("not an image")
    pairs = scan(tmp_path, layout)
    assert len(pairs) == len(list(tmp_path.rglob("*.png"))) / 2
    for pair in pairs:
        blur, sharp = kinds.split()
        assert pair.sharp == pair.blur.replace(f"{blur}/", f"{sharp}/")
        assert pair.split == ("train" if "train" in pair.blur else "test")
    if has_scenes:
        assert len({pair.scene for pair in pairs}) == 2


def test_realblur_files_pair_under_their_published_names(tmp_path: Path) -> None:
    write_image(tmp_path / "train/blur/scene001/blur_1.png", PIXELS)
    write_image(tmp_path / "train/sharp/scene001/gt_1.png", PIXELS)
    expected = PairFiles("train", "scene001", "1", "train/blur/scene001/blur_1.png", "train/sharp/scene001/gt_1.png")
    assert scan(tmp_path, "realblur_j") == [expected]


def test_realblur_is_found_by_the_lists_of_its_authors(tmp_path: Path) -> None:
    folder = "RealBlur-J_ECC/scene001"
    for split, number in (("train", 1), ("test", 2)):
        names = [f"{folder}/gt/gt_{number}.png", f"{folder}/blur/blur_{number}.png"]
        for name in names:
            write_image(tmp_path / name, PIXELS)
        (tmp_path / f"RealBlur_J_{split}_list.txt").write_text(" ".join([*names, "further"]) + "\n\n")
    pairs = scan(tmp_path, "realblur_j")
    assert [(pair.split, pair.scene, pair.name) for pair in pairs] == [
        ("test", "scene001", "2"),
        ("train", "scene001", "1"),
    ]
    assert (pairs[0].sharp, pairs[0].blur) == (f"{folder}/gt/gt_2.png", f"{folder}/blur/blur_2.png")
    (tmp_path / "RealBlur_J_test_list.txt").write_text("scene001/gt/gt_9.png scene001/blur/blur_9.png\n")
    with pytest.raises(InputError, match="RealBlur_J_test_list.txt: line 1: should name a sharp and a blurred file"):
        scan(tmp_path, "realblur_j")


def test_images_of_one_folder_are_validated_on_in_blocks(tmp_path: Path) -> None:
    make(tmp_path, "{split}/{blur}/{scene}{name}.png", "blur sharp", scenes="abcd", names="12345")
    pairs = scan(tmp_path, "folders")
    train = [pair for pair in pairs if pair.split == "train"]
    assert [pair.scene for pair in train] == [f"block {number // 2}" for number in range(20)]
    assert {pair.scene for pair in pairs if pair.split == "test"} == {"all"}
    chosen = {entry["scene"] for entry in split_index(pairs, 2) if entry["split"] == "val"}
    assert chosen == {"block 2", "block 7"}


def test_folders_without_split_are_test_so_that_they_never_train(tmp_path: Path) -> None:
    make(tmp_path, "{blur}/{name}.png", "blur sharp")
    assert {pair.split for pair in scan(tmp_path, "folders")} == {"test"}


def spoil_blur(root: Path) -> None:
    (root / "train/a/sharp/1.png").unlink()


def spoil_sharp(root: Path) -> None:
    for name in "12":
        (root / f"test/b/blur/{name}.png").unlink()


def spoil_folder(root: Path) -> None:
    for name in "12":
        (root / f"train/a/sharp/{name}.png").unlink()
    (root / "train/a/sharp").rmdir()


def spoil_split(root: Path) -> None:
    for path in (root / "train").rglob("*.png"):
        path.unlink()


def spoil_all(root: Path) -> None:
    (root / "train").rename(root / "training")
    (root / "test").rename(root / "testing")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            spoil_blur,
            "1 blurred images without sharp one: train/a/blur/1.png; should have the same names in train/a/sharp",
        ),
        (spoil_sharp, "2 sharp images without blurred one: test/b/sharp/1.png, test/b/sharp/2.png"),
        (spoil_folder, "folder train/a/sharp is missing"),
        (spoil_split, "train: no pairs"),
        (spoil_all, "no images in layout gopro"),
        (lambda root: write_image(root / "test/a/blur/1.bmp", PIXELS), "test/a/blur/1.bmp and test/a/blur/1.png"),
    ],
)
def test_odd_data_sets_are_refused_in_one_line(tmp_path: Path, spoil, told: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        scan(tmp_path, "gopro")
    assert told in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_missing_root_and_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data folder; should hold .*train,test.*layout gopro"):
        scan(tmp_path / "nowhere", "gopro")
    with pytest.raises(InputError, match="layout 'reds' is not known; known: .*gopro"):
        scan(tmp_path, "reds")


def test_counts_are_compared_with_the_published_ones(tmp_path: Path) -> None:
    make(tmp_path, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    assert count_report(scan(tmp_path, "gopro"), "gopro") == [
        "gopro: 4 of 2103 train pairs (a subset?)",
        "gopro: 4 of 1111 test pairs (a subset?)",
    ]
    whole = [PairFiles("test", "all", str(i), "", "") for i in range(2025)]
    assert count_report(whole, "hide") == []
    assert count_report(whole, "folders") == []
    assert set(LAYOUTS) == {"gopro", "hide", "realblur_j", "realblur_r", "folders"}


def train_and_test(scenes: int) -> list[PairFiles]:
    return [PairFiles(split, f"s{i}", "1", f"{split}{i}", "") for split in ("train", "test") for i in range(scenes)]


@pytest.mark.parametrize(("wanted", "chosen"), [(1, {"s3"}), (2, {"s1", "s4"}), (("s0", "s5"), {"s0", "s5"})])
def test_val_is_whole_scenes_of_train(wanted: int | tuple[str, ...], chosen: set[str]) -> None:
    entries = split_index(train_and_test(6), wanted)
    assert {entry["scene"] for entry in entries if entry["split"] == "val"} == chosen
    assert all(entry["blur"].startswith("test") == (entry["split"] == "test") for entry in entries)
    assert sum(entry["split"] == "test" for entry in entries) == 6


@pytest.mark.parametrize(
    ("wanted", "told"),
    [(3, "leaves none"), (9, "leaves none"), (("s0", "nix"), "no train scene 'nix'; known: s0, s1, s2")],
)
def test_bad_val_scenes(wanted: int | tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        split_index(train_and_test(3), wanted)


def test_a_test_only_data_set_needs_no_val_scenes() -> None:
    assert {e["split"] for e in split_index([PairFiles("test", "all", "1", "", "")], ("s0",))} == {"test"}


def write_manifest(root: Path, **stated: str) -> None:
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["split", "scene", "name", *stated], ["train", "a", "1", *stated.values()]])


def test_index_checks_files_and_attaches_exposures(tmp_path: Path) -> None:
    make(tmp_path, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    plain = build_index(tmp_path, "gopro", 1)
    assert {entry["exposure_px"] for entry in plain["pairs"]} == {None}
    assert {(entry["height"], entry["width"]) for entry in plain["pairs"]} == {(16, 18)}
    write_manifest(tmp_path, length_px="4.5")
    seen: list[tuple[int, int]] = []
    labelled = build_index(tmp_path, "gopro", 1, lambda done, total: seen.append((done, total)))
    assert [e["exposure_px"] for e in labelled["pairs"] if (e["scene"], e["name"]) == ("a", "1")] == [None, 4.5]
    assert seen[-1] == (8, 8) and labelled["digest"] != plain["digest"]
    assert {entry["angle_deg"] for entry in labelled["pairs"]} == {None}
    for angle, expected in (("-12.5", -12.5), ("", None)):
        write_manifest(tmp_path, length_px="4.5", angle_deg=angle)
        (entry,) = (e for e in build_index(tmp_path, "gopro", 1)["pairs"] if e["exposure_px"] is not None)
        assert entry["angle_deg"] == expected
    write_manifest(tmp_path, angle_deg="3")
    assert {entry["angle_deg"] for entry in build_index(tmp_path, "gopro", 1)["pairs"]} == {None}


@pytest.mark.parametrize(
    ("length", "angle", "problem"),
    [
        ("long", "1", "length_px 'long'; should be a number of px"),
        ("-1", "1", "length_px '-1'; should be a number of px"),
        ("inf", "1", "length_px 'inf'; should be a number of px"),
        ("4.5", "up", "angle_deg 'up'; should be a number of degrees, or empty"),
        ("4.5", "-inf", "angle_deg '-inf'; should be a number of degrees, or empty"),
    ],
)
def test_a_manifest_with_a_wrong_number_is_one_line(tmp_path: Path, length: str, angle: str, problem: str) -> None:
    make(tmp_path, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    write_manifest(tmp_path, length_px=length, angle_deg=angle)
    with pytest.raises(InputError, match=re.escape(f"manifest.csv: line 2: {problem}")):
        build_index(tmp_path, "gopro", 1)


def test_index_digest_follows_content(tmp_path: Path) -> None:
    make(tmp_path, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    digest = build_index(tmp_path, "gopro", 1)["digest"]
    assert build_index(tmp_path, "gopro", ("a",))["digest"] == digest
    write_image(tmp_path / "train/a/blur/1.png", PIXELS + 1)
    assert build_index(tmp_path, "gopro", 1)["digest"] != digest


def test_index_refuses_a_pair_of_two_sizes_and_a_truncated_file(tmp_path: Path) -> None:
    make(tmp_path, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    path = tmp_path / "train/a/blur/1.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (16, 19, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="1.png: 16x19 px, but its sharp image train/a/sharp/1.png has 16x18"):
        build_index(tmp_path, "gopro", 1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="train/a/blur/1.png: truncated"):
        build_index(tmp_path, "gopro", 1)


def test_folder_digest_with_and_without_cache(tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache.json"
    make(root, "{split}/{scene}/{blur}/{name}.png", "blur sharp")
    for path in root.rglob("*.png"):
        os.utime(path, (1_000_000_000, 1_000_000_000))  # long before the cache
    plain = folder_digest(root)
    assert folder_digest(root, cache) == plain and folder_digest(root, cache) == plain
    path = root / "test/a/blur/1.png"
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert folder_digest(root, cache) == folder_digest(root) != plain
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    folder_digest(root, cache)
    path.rename(path.with_name("renamed.png"))
    assert folder_digest(root, cache) == folder_digest(root) != plain
    cache.write_text("broken")
    assert folder_digest(root, cache) == folder_digest(root)


def test_folder_digest_cache_does_not_trust_files_as_young_as_itself(tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache.json"
    write_image(root / "a.png", PIXELS)
    state = (root / "a.png").stat()
    before = folder_digest(root, cache)
    content = bytearray((root / "a.png").read_bytes())
    content[-20] ^= 1
    (root / "a.png").write_bytes(content)
    os.utime(root / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns))  # as if within one tick of the clock
    assert folder_digest(root, cache) != before


def test_folder_digest_cache_remembers_every_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, roots = tmp_path / "digests.json", [tmp_path / name for name in ("one", "one_more", "one/inside")]
    for root in roots:
        root.mkdir()
        (root / "image.png").write_text(root.name)
        os.utime(root / "image.png", (1, 1))
    digests = [folder_digest(root, cache) for root in roots]
    monkeypatch.setattr("blurdm.data.splits._sha256", lambda path: pytest.fail(f"{path} is read again"))
    assert [folder_digest(root, cache) for root in roots] == digests
    (roots[1] / "image.png").unlink()
    folder_digest(roots[1], cache)
    assert sorted(json.loads(cache.read_text())) == sorted(str(root / "image.png") for root in (roots[0], roots[2]))
