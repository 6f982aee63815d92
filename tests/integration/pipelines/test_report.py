"""`lrm report`: one self-contained file that agrees with `lrm status` and escapes all names."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset.root import open_root
from filters.chain import filter_title, reason_title
from pipelines.cli import main
from pipelines.report.gather import SampleSizes, _groups, gather
from pipelines.report.page import funnel, render_page
from pipelines.report.thumbnails import sheets, thumbnails
from tests.support.lrm import run_lrm


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def written(built_dataset, tmp_path_factory):
    """Return the command's JSON output and the page for the demo dataset."""
    out = tmp_path_factory.mktemp("report") / "new"
    result = run_lrm(
        "report", "--root", built_dataset.root, "--out", out, "--thumbnails", 1, "--json"
    )
    answer = result.json()
    assert answer["report"] == str(out / "report.html")
    assert [path.name for path in out.iterdir()] == ["report.html"]
    return answer, (out / "report.html").read_text()


@pytest.fixture(scope="module")
def data(built_dataset):
    return gather(open_root(str(built_dataset.root)), SampleSizes())


def test_the_file_needs_nothing_else(written):
    page = Page(written[1])
    assert all(value.startswith("data:image/webp;base64,") for value in page.attributes("src"))
    assert all(value.startswith("#") for value in page.attributes("href"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "url(" not in written[1] and "@import" not in written[1]


def test_no_picture_is_empty(written):
    answer, text = written
    sources = Page(text).attributes("src")
    assert answer["pictures"] == len(sources) >= 10
    for source in sources:
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_the_report_agrees_with_status(written, built_dataset):
    status = run_lrm("status", "--root", built_dataset.root, "--json").json()
    text = " ".join(Page(written[1]).text.split())
    for reason, count in [*status["dropped"].items(), *status["failed"].items()]:
        assert f"{reason_title(reason)} {count} object" in text
    assert f"{status['kept']}kept" in text.replace(" ", "")


def test_the_funnel_ends_with_the_kept_objects(data):
    rows = funnel(data)
    assert rows[0].kind == "listed"
    assert (rows[-1].kind, rows[-1].count) == ("kept", rows[-1].left)
    filters = [row.label for row in rows if row.kind == "dropped"]
    assert filters == [filter_title(link.name) for link in data.filters if link.enabled]
    assert "licence" not in filters
    for before, row in pairwise(rows[:-1]):
        assert row.left == before.left - row.count


def test_a_strange_name_stays_text(data):
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\ud800\u202e'
    dropped = {
        reason: [replace(item, name=hostile, path=hostile) for item in items]
        for reason, items in data.dropped.items()
    }
    failed = {
        kind: [replace(item, message=hostile, log_tail=hostile) for item in items]
        for kind, items in data.failed.items()
    }
    kept = {
        shard: [replace(item, caption=hostile, licence=hostile) for item in items]
        for shard, items in data.kept.items()
    }
    changed = replace(data, dropped=dropped, failed=failed, kept=kept)
    pictures = sheets(open_root(data.root), data.kept)
    page = Page(render_page(changed, pictures).encode(errors="replace").decode())
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.attributes("onerror") == []
    assert page.text.count("<script>alert(1)</script>") >= 10


def test_the_shown_samples_do_not_change_between_reports(built_dataset, data):
    root = open_root(str(built_dataset.root))
    again = gather(root, SampleSizes())
    assert (again.dropped, again.failed, again.kept) == (data.dropped, data.failed, data.kept)
    few = gather(root, SampleSizes(shards=1, per_shard=1))
    assert [len(items) for items in few.kept.values()] == [1]
    assert few.num_shards == data.num_shards > 1
    (shard,) = few.kept
    assert few.kept[shard][0] == data.kept[shard][0]


@given(st.lists(st.sampled_from("abcd"), min_size=1), st.data())
def test_rows_are_grouped_by_value_in_plain_and_dictionary_columns(values, data):
    indices = st.integers(0, len(values) - 1)
    rows = np.array(data.draw(st.lists(indices, min_size=1, unique=True)))
    plain = pa.chunked_array([pa.array(values)])
    results = [_groups(column, rows) for column in (plain, plain.dictionary_encode())]
    expected = {values[row]: set() for row in rows}
    for row in rows:
        expected[values[row]].add(int(row))
    for groups in results:
        assert {name: set(part.tolist()) for name, part in groups.items()} == expected


def test_the_reason_for_a_missing_picture_is_shown(built_dataset, data, tmp_path):
    root = open_root(str(built_dataset.root))
    missing = {
        reason: [replace(item, path="glbs/000-000/none.glb") for item in items]
        for reason, items in data.dropped.items()
    }
    changed = {reason: [replace(items[0], sha256="0" * 64)] for reason, items in missing.items()}
    pictures = thumbnails(root, data.config, missing)
    assert len(pictures) == sum(map(len, missing.values()))
    assert {picture.problem for picture in pictures.values()} == {
        "glbs/000-000/none.glb: the source lists this file but does not have it"
    }
    late = thumbnails(root, data.config, changed, total_seconds=-1)
    assert {picture.problem for picture in late.values()} == {
        "the time limit for pictures was reached"
    }
    replaced = {
        reason: [replace(data.dropped[reason][0], sha256="0" * 64)] for reason in data.dropped
    }
    differs = thumbnails(root, data.config, replaced)
    assert {picture.problem for picture in differs.values()} == {
        "its file changed after it was evaluated"
    }
    text = render_page(data, sheets(root, data.kept) | pictures)
    assert text.count("no picture: glbs/000-000/none.glb") == len(pictures)


def test_a_missing_shard_does_not_stop_the_report(data, tmp_path):
    pictures = sheets(open_root(data.root), {"shards/none.tar": next(iter(data.kept.values()))})
    assert all("index" in picture.problem for picture in pictures.values())
    assert len(pictures) >= 1


def test_without_thumbnails_no_blender_is_needed(built_dataset, tmp_path, capsys):
    words = [
        "report",
        "--root",
        str(built_dataset.root),
        "--out",
        str(tmp_path),
        "--thumbnails",
        "0",
    ]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "no picture" not in text
    assert "yellow pencil" in text


def test_bad_options_are_refused_before_anything_is_written(built_dataset, tmp_path, capsys):
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_text("")
    for words in (["--thumbnails", "-1"], ["--shards", "-1"], []):
        out = new if words else file
        assert main(["report", "--root", str(built_dataset.root), "--out", str(out), *words]) == 2
        assert (words or ["--out"])[0] in capsys.readouterr().err
    assert not new.exists()
