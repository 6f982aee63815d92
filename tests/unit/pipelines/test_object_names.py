"""Names of objects, on the command line and in files: one rule for every command."""

from pathlib import Path

import pytest

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.object_table import latest_of
from pipelines.selection.object_names import (
    id_line,
    names_in_file,
    names_of_words,
    resolve_names,
)

IDS = [
    "objaverse:a1b2c3",
    "objaverse:shared",
    "folder:shared",
    "folder:kitchen/tea pot",
    "folder:pot",
    "folder:pot #1",
    "folder:a:b",
    "folder:two\nlines",
    "folder: edge ",
    'folder:"quoted"',
    "folder:\N{RIGHT-TO-LEFT OVERRIDE}x",
    "folder:an asset_id",
]
GONE = "objaverse:gone"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Return a dataset of both sources; some events are in `latest/`, the others in the log."""
    root = Storage(str(tmp_path_factory.mktemp("names")))
    catalog = Catalog(root)
    data = {"tags": [], "caption": None, "licence": None, "age_restricted": False}

    def listed(*ids: str, status: str = "ok") -> list[Event]:
        return [Event(asset_id=one, stage="list", status=status, data=data) for one in ids]

    catalog.commit(listed(*IDS[:6], GONE), "run", 1)
    latest_of(root, catalog).update_base()
    catalog.commit([*listed(*IDS[6:]), *listed(GONE, status="gone")], "run", 2)
    return root


def resolved(root: Storage, *words: str, listed: bool = False) -> list[str]:
    return resolve_names(root, names_of_words(words), listed=listed)


def from_lines(root: Storage, *lines: str) -> list[str]:
    return resolve_names(root, names_in_file(lines, "--from ids.txt"), listed=False)


def refusal(root: Storage, *lines: str) -> str:
    with pytest.raises(BadInput) as caught:
        from_lines(root, *lines)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "asset_id"),
    [
        ("a1b2c3", "objaverse:a1b2c3"),
        ("objaverse:a1b2c3", "objaverse:a1b2c3"),
        ("kitchen/tea pot", "folder:kitchen/tea pot"),
        ("pot #1", "folder:pot #1"),
        ("a:b", "folder:a:b"),
        ("two\nlines", "folder:two\nlines"),
        (" edge ", "folder: edge "),
        ("objaverse:shared", "objaverse:shared"),
        ("folder:shared", "folder:shared"),
    ],
)
def test_an_id_is_found_with_and_without_its_source(root: Storage, word: str, asset_id: str):
    assert resolved(root, word, word) == [asset_id]


def test_an_id_of_two_sources_names_both(root: Storage):
    with pytest.raises(BadInput, match="'shared' is folder:shared or objaverse:shared"):
        resolved(root, "shared")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("a1b2", "'a1b2': not an asset id of this dataset; did you mean objaverse:a1b2c3?"),
        ("objavers:A1B2C3", "; did you mean objaverse:a1b2c3?"),
        ("tea pot", "; did you mean folder:kitchen/tea pot?"),
        ("objaverse:nope", "'objaverse:nope': not in this dataset"),
        ("nope", "; an asset id looks like objaverse:UID, or UID alone"),
        ("folder:\udcff\udcff\udcff\udcff", "\\udcff': not in this dataset"),
        ("", "; an asset id looks like objaverse:UID, or UID alone"),
    ],
)
def test_an_unknown_id_is_refused_and_similar_ones_are_named(root: Storage, word: str, line: str):
    with pytest.raises(BadInput) as caught:
        resolved(root, word)
    assert str(caught.value).endswith(line)


def test_every_id_is_found_in_the_lines_that_list_prints(root: Storage):
    lines = "".join(f"{id_line(asset_id)}\n" for asset_id in [*IDS, GONE])
    assert from_lines(root, *lines.splitlines(keepends=True)) == [*IDS, GONE]
    assert from_lines(root, "folder:an asset_id") == IDS[-1:]


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("objaverse:a1b2c3\r\n", ["objaverse:a1b2c3"]),
        ("\ufeffa1b2c3", ["objaverse:a1b2c3"]),
        ("objaverse:a1b2c3  # asked by its author", ["objaverse:a1b2c3"]),
        ("a1b2c3#b", ["objaverse:a1b2c3"]),
        ("folder:pot #1", ["folder:pot #1"]),
        ("pot #1\r\n", ["folder:pot #1"]),
        ('"quoted"', ['folder:"quoted"']),
        ("  # folder:pot", []),
        ("", []),
    ],
)
def test_a_line_gives_its_id(root: Storage, line: str, ids: list[str]):
    assert from_lines(root, "folder:pot", line, line) == ["folder:pot", *ids]


@pytest.mark.parametrize("line", ["pot #2", "folder:pot #2", "pot # a comment"])
def test_a_comment_never_shortens_an_id_of_a_folder(root: Storage, line: str):
    """Otherwise `pot #2`, which the dataset lacks, would take down `pot`."""
    assert refusal(root, "a1b2c3", line).startswith(f"--from ids.txt, line 2: {line!r}: not ")


@pytest.mark.parametrize(
    "header", ["asset_id,state", '"asset_id"', "state\tasset_id", "asset_id   state", "[", "{}"]
)
def test_a_table_or_json_is_refused_as_such(root: Storage, header: str):
    line = refusal(root, "\n", header, "a1b2c3")
    assert line.startswith("--from ids.txt, line 2: this is the beginning of a table or of JSON")


def test_a_list_with_an_unknown_id_is_refused_as_a_whole(root: Storage):
    line = refusal(root, "a1b2c3", "a chair", "another")
    assert line.startswith("--from ids.txt, line 2: 'a chair' and 1 more: not an asset id of")
    assert from_lines(root, "# nothing") == []


def test_an_object_that_is_no_longer_listed_can_be_removed_but_not_inspected(root: Storage):
    assert resolved(root, "gone") == [GONE]
    with pytest.raises(BadInput, match="objaverse:gone: the source no longer lists this object"):
        resolved(root, "gone", listed=True)


def test_a_dataset_without_events_has_no_objects(tmp_path: Path):
    with pytest.raises(BadInput, match="not an asset id of this dataset"):
        resolved(Storage(str(tmp_path)), "a1b2c3")
