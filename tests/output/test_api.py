"""The style of text output: what a guest says cannot drive the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probekit.output.api import TextStyle


@given(st.text(max_size=30))
def test_text_of_the_guest_has_no_control_characters_on_a_terminal(text: str) -> None:
    shown = TextStyle(escape=True).guest(text)
    assert not any(ord(char) < 32 and char not in "\n\t" for char in shown)
    assert "\x1b" not in shown and "\x7f" not in shown and "\x9b" not in shown
    assert TextStyle(escape=False).guest(text) == text
