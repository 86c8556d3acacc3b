"""Random histories for Hypothesis: frames of wishes."""

from __future__ import annotations

from hypothesis import strategies as st

wish = st.tuples(
    st.integers(0, 14),
    st.integers(0, 2),
    st.integers(0, 1),
    st.integers(3_990, 4_010),
    st.integers(1, 30),
    st.integers(0, 30),
)
frames = st.lists(st.lists(wish, min_size=1, max_size=8), min_size=1, max_size=14)
