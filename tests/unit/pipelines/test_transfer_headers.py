"""The headers of a server's response are parsed, and malformed ones are ignored."""

import pytest

from pipelines.transfers.announced_content import AnnouncedContent
from pipelines.transfers.headers import (
    ContentRange,
    RateLimits,
    content_length,
    content_range,
    entity_tag,
    rate_limits,
    retry_after,
)

SHA256 = "a" * 64


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 5-9/10", ContentRange(5, 10)),
        ("bytes 5-9/*", ContentRange(5, None)),
        ("bytes */10", ContentRange(None, 10)),
        ("bytes 5-9/10, bytes 1-2/10", ContentRange()),
        ("items 5-9/10", ContentRange()),
        ("bytes ²-9/10", ContentRange()),
        ("", ContentRange()),
    ],
)
def test_a_malformed_content_range_is_ignored(value, expected):
    assert content_range({"content-range": value}) == expected


@pytest.mark.parametrize(("value", "expected"), [("12", 12), ("-1", None), ("²", None), ("", None)])
def test_a_malformed_content_length_is_ignored(value, expected):
    assert content_length({"content-length": value}) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [('"abc"', "abc"), ('W/"abc"', "abc"), ("abc", "abc"), ('""', None)]
)
def test_an_entity_tag_is_read_without_its_quotes(value, expected):
    assert entity_tag({"etag": value}) == expected
    assert entity_tag({}) is None


def test_rate_limits_are_read_in_both_forms():
    new = {"ratelimit": '"a";r=0;t=42', "ratelimit-policy": '"a";q=10;w=1, "b";q=600;w=300'}
    assert rate_limits(new) == RateLimits(policy=(600, 300.0), reset_seconds=42.0)
    old = {"ratelimit-remaining": "0", "ratelimit-reset": "7"}
    assert rate_limits(old) == RateLimits(reset_seconds=7.0)
    assert rate_limits({"ratelimit-remaining": "3", "ratelimit-reset": "7"}) == RateLimits()


def test_the_first_server_announces_the_content_and_later_tags_are_ignored():
    linked = {"x-linked-etag": f'"{SHA256}"', "x-linked-size": "7", "etag": '"weak"'}
    announced = AnnouncedContent().with_headers(linked, from_origin=True)
    assert announced == AnnouncedContent(etag=SHA256, sha256=SHA256, size=7)
    later = {"etag": f'"{"b" * 64}"', "x-linked-size": "9"}
    assert announced.with_headers(later, from_origin=False) == announced
    assert AnnouncedContent().with_headers(later, from_origin=False) == AnnouncedContent(size=9)
    assert (
        AnnouncedContent().with_headers({"etag": '"no digest"'}, from_origin=True)
        == AnnouncedContent()
    )


DAY = 24 * 3600.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "9" * 400}, DAY),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, DAY),
    ],
)
def test_a_long_retry_after_is_a_day(headers: dict[str, str], expected: float):
    assert retry_after(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit": f'"a";r=0;t={10**17}'}, RateLimits(reset_seconds=DAY)),
        ({"ratelimit": f'"a";r=0;t={"9" * 5000}'}, RateLimits()),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "9" * 17}, RateLimits(reset_seconds=DAY)),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "9" * 5000}, RateLimits()),
        ({"ratelimit-policy": f'"a";q=1;w={10**9}'}, RateLimits()),
        ({"ratelimit-policy": f'"a";q={"9" * 5000};w=1'}, RateLimits()),
    ],
)
def test_waits_without_end_are_not_believed(headers: dict[str, str], expected: RateLimits):
    """The cluster's budget outlives the build: such a wait would stop every later one."""
    assert rate_limits(headers) == expected


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000])
def test_a_length_of_too_many_digits_is_unknown(digits: str):
    assert content_length({"content-length": digits}) is None
