import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import tokens
from openinference.errors import InternalError
from openinference.tokens import Token

BARE = st.builds(
    Token, st.integers(0, 2**31 - 1), st.text(max_size=9), st.floats(-1e4, 0), st.booleans()
)
TOKENS = st.lists(
    st.builds(
        lambda token, top: Token(token.id, token.text, token.logprob, token.special, tuple(top)),
        BARE,
        st.lists(BARE, max_size=3),
    ),
    max_size=4,
).map(tuple)


@given(chosen=TOKENS)
def test_what_is_encoded_decodes_to_the_same_tokens(chosen):
    assert tokens.decode(tokens.encode(chosen)) == chosen


def test_a_token_is_told_with_its_rivals():
    rival = Token(7, "b", -2.0, special=True)
    assert tokens.encode([Token(5, "a", -0.5, top=(rival,))]) == (
        b'[{"id":5,"text":"a","logprob":-0.5,"special":false,'
        b'"top":[{"id":7,"text":"b","logprob":-2.0,"special":true}]}]'
    )


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{}", b"7", b"[7]", b"[null]", b'[{"top": []}]', b"\xff"),
        b'[{"id": 1, "text": 2, "logprob": 0, "special": false, "top": []}]',
        b'[{"id": 1, "text": "a", "logprob": "0", "special": false, "top": []}]',
        b'[{"id": 1, "text": "a", "logprob": 0, "special": 0, "top": []}]',
        b'[{"id": 1, "text": "a", "logprob": 0, "special": false, "top": 7}]',
        b'[{"id": 1, "text": "a", "logprob": 0, "special": false}]',
    ],
)
def test_what_no_predictor_of_ours_writes_is_an_internal_error(text):
    with pytest.raises(InternalError):
        tokens.decode(text)
