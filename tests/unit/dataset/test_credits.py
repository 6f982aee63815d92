"""CREDITS: every author is named, and markup in names is escaped."""

from hypothesis import given, settings
from hypothesis import strategies as st

from core.storage import Storage
from dataset.format.shards import read_index
from dataset.snapshots.credits import credit_lines
from tests.support.small_shards import write_small_shard, write_test_snapshot

UID = "8476c4170df24cf5bbe6967222d1a42d"


def last_line(*credit) -> str:
    return list(credit_lines("ab", {}, [credit]))[-1]


def test_an_object_of_objaverse_links_to_its_page():
    assert last_line(f"objaverse:{UID}", "A chair", "me", "by-nc") == (
        f"- [A chair](https://sketchfab.com/3d-models/{UID}) by me, "
        "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)\n"
    )


def test_an_unknown_author_and_licence_are_shown_as_unknown():
    assert last_line("files:a/b c.glb", "", None, None) == "- files:a/b c.glb, unknown\n"


def test_licences_are_counted_the_most_frequent_first():
    text = "".join(credit_lines("ab", {"by": 2, "cc0": 5, "odd | one": 1}, []))
    rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| ")]
    assert [row[1].strip() for row in rows[1:3]] == ["5", "2"]
    assert "| odd \\| one | 1 |" in text


def test_markup_in_names_is_escaped():
    shown = last_line("objaverse:x", "](http://evil) <script>\n# *big*", "a_b|c", "by")
    assert len(shown.splitlines()) == 1
    assert "<script>" not in shown
    assert "\\]\\(http://evil\\) &lt;script&gt; \\# \\*big\\*" in shown
    assert "a\\_b\\|c" in shown


@settings(max_examples=30)
@given(st.text(), st.text())
def test_an_object_is_one_line(name, author):
    shown = last_line(f"objaverse:{UID}", name, author, "by")
    assert shown.endswith("\n")
    assert len(shown[:-1].splitlines()) == 1


def test_the_credits_are_written_beside_the_snapshot(tmp_path):
    root = Storage(str(tmp_path))
    write_small_shard(root, "shards/test/a.tar", [1, 2])
    entries, _ = read_index(root, "shards/test/a.tar")
    snapshot = write_test_snapshot(
        root, entries, {entry.key: "shards/test/a.tar" for entry in entries}
    )
    text = root.read(f"snapshots/{snapshot}.credits.md").decode()
    assert text.count("https://sketchfab.com/3d-models/") == 2
    assert "| 2 |" in text
