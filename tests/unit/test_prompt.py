"""The prompt: the newest turns that fit, never without the newest."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.conversation import CONTENT_LIMIT, Message, MessageRole, MessageStatus
from domain.errors import PromptTooLong
from domain.prompt import Turn, build_prompt, check_fits, estimated_tokens, prompt_budget
from tests.builders import a_conversation, a_message

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=8)
BUDGETS = st.integers(0, 80)


def newest_first(texts: Sequence[str]) -> Sequence[Message]:
    conversation = a_conversation()
    return [a_message(conversation, content=text) for text in texts]


def cost(turns: Sequence[Turn]) -> int:
    return sum(estimated_tokens(turn.text) for turn in turns)


def test_turns_come_oldest_first_with_their_roles() -> None:
    conversation = a_conversation()
    question = a_message(conversation, content="Will it rain?")
    answer = a_message(conversation, question, role=MessageRole.ASSISTANT, content="No.")
    again = a_message(conversation, answer, content="Sure?")
    assert build_prompt([again, answer, question], 1000) == [
        Turn(MessageRole.USER, "Will it rain?"),
        Turn(MessageRole.ASSISTANT, "No."),
        Turn(MessageRole.USER, "Sure?"),
    ]


def test_the_field_to_blame_for_a_prompt_that_is_too_long_is_named() -> None:
    with pytest.raises(PromptTooLong) as refusal:
        check_fits("x" * 100, 10, field="options.model")
    assert refusal.value.field == "options.model"


def test_history_is_cut_where_the_budget_ends() -> None:
    turns = build_prompt(newest_first(["new", "old", "x" * 300, "oldest"]), 20)
    assert [turn.text for turn in turns] == ["old", "new"]


def test_a_message_without_text_is_left_out() -> None:
    conversation = a_conversation()
    failed = a_message(conversation, content="", status=MessageStatus.FAILED)
    assert len(build_prompt([a_message(conversation), failed, a_message(conversation)], 1000)) == 2


@given(TEXTS, BUDGETS)
def test_the_newest_text_is_always_there(texts: list[str], budget: int) -> None:
    newest = next((text for text in texts if text), None)
    turns = build_prompt(newest_first(texts), budget)
    assert (turns[-1].text if turns else None) == newest


@given(TEXTS, BUDGETS)
def test_more_than_the_newest_never_passes_the_budget(texts: list[str], budget: int) -> None:
    turns = build_prompt(newest_first(texts), budget)
    assert len(turns) <= 1 or cost(turns) <= budget


@given(TEXTS, BUDGETS)
def test_nothing_is_skipped_between_two_turns(texts: list[str], budget: int) -> None:
    turns = build_prompt(newest_first(texts), budget)
    present = [text for text in texts if text]
    assert [turn.text for turn in reversed(turns)] == present[: len(turns)]


@given(TEXTS, BUDGETS)
def test_what_still_fits_is_not_cut(texts: list[str], budget: int) -> None:
    turns = build_prompt(newest_first(texts), budget)
    present = [text for text in texts if text]
    if len(turns) < len(present):
        assert cost(turns) + estimated_tokens(present[len(turns)]) > budget


@given(TEXTS, BUDGETS)
def test_messages_within_three_bytes_a_token_hold_all_turns(texts: list[str], budget: int) -> None:
    """The store reads a branch until it passes 3 bytes for each token of the budget: no turn is lost by that."""
    messages = newest_first(texts)
    sizes = [len(text.encode()) for text in texts]
    read = [message for place, message in enumerate(messages) if sum(sizes[:place]) <= budget * 3]
    assert build_prompt(read, budget) == build_prompt(messages, budget)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_longer_text_never_costs_less(text: str, more: str) -> None:
    assert estimated_tokens(text + more) >= estimated_tokens(text)


def test_a_quarter_of_the_window_is_left_for_the_answer() -> None:
    assert prompt_budget(32_768) == 24_576


def test_a_question_that_just_fits_is_let_through() -> None:
    check_fits("x" * 90, 34)


def test_a_question_that_does_not_fit_alone_is_told_the_limit() -> None:
    with pytest.raises(PromptTooLong) as refusal:
        check_fits("x" * 90, 33)
    assert refusal.value.metadata == {"limit": "33"}


def test_the_longest_question_fits_a_window_of_128_000_tokens() -> None:
    check_fits("x" * CONTENT_LIMIT, prompt_budget(128_000))
