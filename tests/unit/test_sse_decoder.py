"""Bytes of an event stream in, text out: however the bytes are cut, and whatever else is in them."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.openai.chunk import TokenCounts
from adapters.openai.sse import LINE_LIMIT, StreamDecoder
from tests.fakes.openai_endpoint import DONE, event, usage

HELLO = event("Hello") + event(" world", finish="stop") + DONE


def decoded(stream: bytes, *cuts: int) -> tuple[str, StreamDecoder]:
    """Returns all text of a stream cut at these places, and the decoder at its end."""
    decoder = StreamDecoder()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    text = [decoder.feed(stream[start:end]) for start, end in pairwise(places) if start < end]
    return "".join(text) + decoder.close(), decoder


def facts(stream: bytes, *cuts: int) -> tuple[str, str | None, TokenCounts, Any]:
    text, decoder = decoded(stream, *cuts)
    return text, decoder.finish_reason, decoder.usage, decoder.error


ODDITIES = [
    DONE,
    usage(3, 2),
    event(finish="stop"),
    b": comment\n\n",
    b"\n",
    b"event: message\n",
    b"id: 7\n",
    b"retry\n",
    b"data:\n\n",
    b"data: \n",
    b"data: null\n\n",
    b"data: no json\n\n",
    b"data:{}\r\n\r\n",
    b'{"error": "no"}',
    b'data: {"choices":\ndata: [{"delta": {"content": "two lines"}}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "\xff\xe2\x82"}}]}\n\n',
    b'event: error\ndata: {"message": "no"}\n\n',
    b'data: {"error": {"code": 429}}\n\n',
    b"\xef\xbb\xbf",
]
LINES = st.one_of(
    st.text(st.characters(codec=None), max_size=8).map(event), st.sampled_from(ODDITIES), st.binary(max_size=8)
)
STREAMS = st.lists(LINES, max_size=8).map(b"".join)


class TestFraming:
    @given(STREAMS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 10_000), max_size=40))
    def test_any_cuts_of_any_stream_give_the_same(self, stream: bytes, line_end: bytes, cuts: list[int]) -> None:
        stream = stream.replace(b"\n", line_end)
        assert facts(stream, *cuts) == facts(stream)

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
    def test_each_line_end_of_the_standard_is_one(self, line_end: bytes) -> None:
        stream = HELLO.replace(b"\n", line_end)
        assert facts(stream, *range(len(stream)))[:2] == ("Hello world", "stop")

    def test_a_character_cut_in_the_middle_of_its_bytes_stays_whole(self) -> None:
        stream = b'data: {"choices": [{"delta": {"content": "\xf0\x9f\x98\x80\xe2\x82\xac"}}]}\n\n'
        assert decoded(stream, *range(len(stream)))[0] == "\U0001f600\u20ac"

    def test_events_of_one_read_are_one_text(self) -> None:
        assert StreamDecoder().feed(HELLO) == "Hello world"

    def test_text_is_there_before_the_event_s_blank_line_is(self) -> None:
        assert StreamDecoder().feed(event("Hello").rstrip(b"\n") + b"\n") == "Hello"

    def test_events_without_blank_lines_between_them_are_read_too(self) -> None:
        assert decoded(HELLO.replace(b"\n\n", b"\n"))[0] == "Hello world"

    def test_a_last_line_without_its_end_counts(self) -> None:
        assert decoded(event("Hello").rstrip())[0] == "Hello"

    def test_the_space_after_the_colon_may_be_missing(self) -> None:
        assert decoded(HELLO.replace(b"data: ", b"data:"))[0] == "Hello world"

    def test_a_byte_order_mark_comments_and_other_fields_are_passed_over(self) -> None:
        stream = b"\xef\xbb\xbf: hi\nid: 1\nretry: 9\nunknown\n" + HELLO.replace(b"\n\n", b"\n\n: ping\n\n")
        assert decoded(stream)[0] == "Hello world"

    def test_a_byte_order_mark_right_before_the_first_event_is_passed_over(self) -> None:
        assert decoded(b"\xef\xbb\xbf" + HELLO)[0] == "Hello world"

    def test_a_document_over_several_data_lines_is_joined(self) -> None:
        document = json.dumps({"choices": [{"delta": {"content": "Hello"}}]}, indent=1)
        stream = "".join(f"data: {line}\n" for line in document.splitlines()) + "\n"
        assert decoded(stream.encode())[0] == "Hello"

    def test_nothing_counts_after_done(self) -> None:
        text, decoder = decoded(HELLO + event(" more"))
        assert text == "Hello world"
        assert decoder.ended

    def test_data_that_is_no_json_ends_the_stream_as_something_is_missing(self) -> None:
        decoder = StreamDecoder()
        assert decoder.feed(event("Hello") + b'data: {"choices": [{"del\n\n' + event(" world")) == "Hello"
        assert decoder.ended
        assert decoder.finish_reason is None

    def test_a_line_past_the_limit_ends_the_stream_before_it_is_whole(self) -> None:
        decoder = StreamDecoder()
        while not decoder.ended:
            assert decoder.feed(b"data: {" + b"x" * 65_536) == ""
        assert len(decoder._rest) < LINE_LIMIT + 100_000

    def test_a_whole_line_past_the_limit_is_no_text(self) -> None:
        text, decoder = decoded(event("x" * LINE_LIMIT) + HELLO)
        assert text == ""
        assert decoder.finish_reason is None

    @pytest.mark.parametrize("line", [b"data: x\n", b"x\n"])
    def test_lines_that_never_become_an_event_are_bounded(self, line: bytes) -> None:
        decoder = StreamDecoder()
        while not decoder.ended:
            decoder.feed(line * 10_000)
        assert LINE_LIMIT < len(decoder._partial) + len(decoder._stray) < 2 * LINE_LIMIT


class TestShapes:
    @given(st.text(st.characters(codec=None)))
    def test_any_text_comes_through_nul_and_lone_surrogates_too(self, text: str) -> None:
        assert decoded(event(text))[0] == json.loads(json.dumps(text))

    def test_bare_control_characters_and_broken_utf_8_cost_no_more_than_themselves(self) -> None:
        stream = b'data: {"choices": [{"delta": {"content": "a\x00b\tc\xffd"}}]}\n\n'
        assert decoded(stream)[0] == "a\x00b\tc\ufffdd"

    @pytest.mark.parametrize(
        "choice",
        [
            {"delta": {"content": "Hello"}, "index": "0", "finish_reason": 7},
            {"delta": {"content": "Hello", "role": 1, "tool_calls": "none"}, "logprobs": [[]]},
            {
                "delta": {
                    "content": [{"type": "text", "text": "Hel"}, {"type": "image"}, {"type": "text", "text": "lo"}, 3]
                }
            },
            {"delta": None, "message": {"role": "assistant", "content": "Hello"}},
            {"delta": {"content": "Hello"}, "index": None},
        ],
    )
    def test_wrong_types_do_not_hide_the_text(self, choice: object) -> None:
        assert decoded(event(choices=[None, choice, "x"], usage="none", created="now"))[0] == "Hello"

    @pytest.mark.parametrize(
        "chunk",
        [
            b"null",
            b"[]",
            b"3",
            b'"text"',
            b"{}",
            b'{"choices": null}',
            b'{"choices": {}}',
            b'{"choices": [{}]}',
            b'{"choices": [{"delta": null}]}',
            b'{"choices": [{"delta": {"content": 5}}]}',
            b'{"choices": [{"delta": []}]}',
        ],
    )
    def test_an_event_without_text_is_no_text_and_no_end(self, chunk: bytes) -> None:
        text, decoder = decoded(b"data: " + chunk + b"\n\n" + HELLO)
        assert text == "Hello world"
        assert decoder.error is None

    def test_reasoning_is_an_event_but_no_text(self) -> None:
        text, decoder = decoded(event(choices=[{"index": 0, "delta": {"reasoning_content": "hmm"}}]))
        assert (text, decoder.events) == ("", 1)

    def test_only_the_first_choice_is_the_answer(self) -> None:
        choices = [
            {"index": 1, "delta": {"content": "B"}, "finish_reason": "length"},
            {"index": 0, "delta": {"content": "A"}},
        ]
        assert facts(event(choices=choices))[:2] == ("A", None)

    def test_usage_comes_in_a_chunk_without_choices(self) -> None:
        assert decoded(HELLO.removesuffix(DONE) + usage(3, 2) + DONE)[1].usage == TokenCounts(3, 2)

    @pytest.mark.parametrize(("stated", "read"), [(-1, 0), (2**40, 2**31 - 1), ("12", 0), (None, 0), (1.5, 0)])
    def test_counts_that_no_integer_column_takes_are_brought_in_range(self, stated: object, read: int) -> None:
        stream = event(choices=[], usage={"prompt_tokens": stated, "completion_tokens": 2})
        assert decoded(stream)[1].usage == TokenCounts(read, 2)

    def test_documents_nested_too_deep_end_the_stream(self) -> None:
        text, decoder = decoded(b'data: {"error": ' + b"[" * 100_000 + b"\n\n" + HELLO)
        assert (text, decoder.ended, decoder.error) == ("", True, None)


class TestErrors:
    def test_an_error_ends_the_stream_after_the_text_before_it(self) -> None:
        text, decoder = decoded(event("Hello") + event(error={"code": 429}) + event(" world"))
        assert (text, decoder.error) == ("Hello", {"code": 429})

    @pytest.mark.parametrize("data", ['{"message": "no"}', '{"error": {"message": "no"}}'])
    def test_an_event_named_error_is_one_whether_or_not_it_says_so_again(self, data: str) -> None:
        assert decoded(f"event: error\ndata: {data}\n\n".encode())[1].error == {"message": "no"}

    @pytest.mark.parametrize("indent", [None, 2])
    def test_a_plain_json_document_in_place_of_a_stream_is_read_as_one_event(self, indent: int | None) -> None:
        document = json.dumps({"error": {"message": "no"}}, indent=indent).encode()
        assert decoded(document, *range(len(document)))[1].error == {"message": "no"}

    def test_an_answer_that_was_not_streamed_is_read_whole(self) -> None:
        document = {
            "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
        assert facts(json.dumps(document).encode()) == ("Hello", "stop", TokenCounts(3, 2), None)
