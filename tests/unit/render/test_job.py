"""Messages between processes are encoded as one line and decoded to equal values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.failures import FailureKind
from glb.limits import GlbLimits
from render.job import (
    CameraSpec,
    CompileRequest,
    GeometryRequest,
    MeasureRequest,
    OpenRequest,
    Rendered,
    RenderRequest,
    Reply,
    Window,
    decode_answer,
    decode_request,
    encode,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
CAMERAS = st.lists(
    st.builds(
        CameraSpec,
        camera_to_world=st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=4, max_size=4),
        intrinsics=st.lists(NUMBERS, min_size=4, max_size=4),
    ),
    max_size=3,
)
REQUESTS = st.one_of(
    st.builds(OpenRequest, limits=st.builds(GlbLimits, max_nodes=st.integers(1))),
    st.builds(MeasureRequest, cameras=CAMERAS),
    st.builds(GeometryRequest),
    st.builds(CompileRequest),
    st.builds(
        RenderRequest,
        cameras=CAMERAS,
        light_strength=NUMBERS,
        light_gradient=NUMBERS,
        quality=NUMBERS,
    ),
)
KINDS = st.none() | st.sampled_from(FailureKind)


# beartype checks a random item of each list while hypothesis builds it.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@given(REQUESTS)
def test_requests_survive_encoding(request):
    line = encode(request)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert decode_request(line) == request


@given(st.builds(Reply, kind=KINDS, data=st.dictionaries(st.text(), NUMBERS | st.text())))
def test_replies_survive_encoding(reply: Reply):
    line = encode(reply)
    assert line.count("\n") == 1
    assert decode_answer(line) == reply


@given(st.builds(Rendered, window=st.none() | st.builds(Window)))
def test_the_message_of_a_rendered_view_survives_encoding(rendered: Rendered):
    line = encode(rendered)
    assert line.count("\n") == 1
    assert decode_answer(line) == rendered


@pytest.mark.parametrize("line", ["", "Fra:1 Mem:12M", "{}", "[]", '{"type": "OpenRequest"}', "7"])
def test_any_other_line_is_not_an_answer(line: str):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode_answer(line)


def test_an_unknown_failure_kind_is_not_an_answer():
    values = json.loads(encode(Reply(kind=FailureKind.CRASH)))
    with pytest.raises(ValueError, match="gone"):
        decode_answer(json.dumps(values | {"kind": "gone"}))


def test_a_request_is_decoded_by_its_type():
    values = json.loads(
        encode(OpenRequest(glb="a.glb", normalise="cube", cull_shells=True, limits=GlbLimits()))
    )
    assert values["type"] == "OpenRequest"
    with pytest.raises(KeyError):
        decode_request(json.dumps(values | {"type": "Reply"}))
