import numpy as np
import pytest

from diffreward.data import Episodes, concatenate, select, transitions

N = 6


def good_arrays():
    return {
        "observations": np.arange(N * 3, dtype=np.float32).reshape(N, 3),
        "actions": np.ones((N, 2), np.float32),
        "rewards": np.zeros(N, np.float32),
        "terminals": np.zeros(N, bool),
        "timeouts": np.zeros(N, bool),
    }


def with_value(shape, row, value):
    x = np.zeros(shape, np.float32)
    x[row] = value
    return x


def test_flags_cut_the_rows_and_the_last_row_ends_an_episode():
    arrays = good_arrays()
    arrays["terminals"][1] = arrays["timeouts"][[1, 2]] = True
    episodes = Episodes.from_arrays(**arrays)
    np.testing.assert_array_equal(episodes.starts, [0, 2, 3])
    np.testing.assert_array_equal(episodes.lengths, [2, 1, 3])
    assert episodes.timeouts[-1]
    assert not arrays["timeouts"][-1], "the caller's array was changed"


def test_a_final_terminal_is_not_also_a_timeout():
    arrays = good_arrays()
    arrays["terminals"][-1] = True
    assert not Episodes.from_arrays(**arrays).timeouts.any()


def test_old_d4rl_columns_and_missing_keys():
    arrays = good_arrays()
    arrays["terminals"][3] = True
    flat = Episodes.from_arrays(**arrays)
    arrays["timeouts"] = arrays["timeouts"].astype(np.float32)[:, None]
    arrays["rewards"] = arrays["rewards"][:, None].astype(np.float64)
    arrays["terminals"] = arrays["terminals"][:, None].astype(np.uint8)
    column = Episodes.from_arrays(**arrays)
    for a, b in zip(flat, column, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("observations", np.zeros((0, 3), np.float32), "no rows"),
        ("observations", np.zeros(N, np.float32), r"shape \(6,\), expected \(rows, dim\)"),
        ("observations", np.full((N, 3), "a"), "dtype <U1, expected float32"),
        ("observations", with_value((N, 3), 4, np.nan), "row 4 holds NaN"),
        ("actions", with_value((N, 2), 2, np.inf), "row 2 holds NaN or inf"),
        ("actions", np.full((N, 2), 1e300), "row 0 holds NaN or inf"),
        ("actions", np.zeros((N - 1, 2), np.float32), r"\(5, 2\), expected \(6, dim\)"),
        ("actions", np.zeros((N, 0), np.float32), r"\(6, 0\), expected \(6, dim\)"),
        ("rewards", np.zeros((N, 2), np.float32), r"\(6, 2\), expected \(6,\)"),
        ("rewards", with_value(N, 5, np.nan), "row 5 holds NaN"),
        ("terminals", np.zeros(N + 1, bool), r"\(7,\), expected \(6,\)"),
        ("terminals", np.full(N, 0.5, np.float32), "row 0 is 0.5, expected 0 or 1"),
        ("terminals", np.full(N, "x"), "dtype <U1, expected bool"),
        ("rewards", np.full(N, 2**24 + 1), "int64 numbers that float32 cannot hold"),
        ("timeouts", np.array([0, 0, 0, 2, 0, 0]), "row 3 is 2, expected 0 or 1"),
        ("timeouts", None, "missing, so episodes that were cut off"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(key, value, says):
    with pytest.raises(ValueError, match=f"^some.hdf5: {key}: .*{says}") as error:
        Episodes.from_arrays(**{**good_arrays(), key: value}, source="some.hdf5")
    assert "\n" not in str(error.value)


def three_episodes():
    arrays = good_arrays()
    arrays["timeouts"][[0, 2]] = True
    return Episodes.from_arrays(**arrays)


def test_transitions_put_the_action_first():
    rows = transitions(three_episodes())
    np.testing.assert_array_equal(rows[1], [1, 1, 3, 4, 5])


def test_select_takes_whole_episodes_in_order():
    chosen = select(three_episodes(), np.array([2, 0]))
    np.testing.assert_array_equal(chosen.observations[:, 0], [9, 12, 15, 0])
    np.testing.assert_array_equal(chosen.timeouts, [False, False, True, True])
    np.testing.assert_array_equal(chosen.starts, [0, 3])
    np.testing.assert_array_equal(chosen.lengths, [3, 1])


def test_concatenate_undoes_select():
    episodes = three_episodes()
    parts = [select(episodes, np.array([i])) for i in range(3)]
    for a, b in zip(concatenate(parts), episodes, strict=True):
        np.testing.assert_array_equal(a, b)


def test_concatenate_names_its_sources():
    parts = [three_episodes()._replace(source=name) for name in ("a", "b", "a", "c")]
    assert concatenate(parts).source == "a and 2 more"


def test_concatenate_and_select_refuse_what_they_cannot_do():
    episodes = three_episodes()
    wide = episodes._replace(observations=np.zeros((N, 4), np.float32), source="b.hdf5")
    with pytest.raises(ValueError, match="b.hdf5: observations: 4 columns, but arrays"):
        concatenate([episodes, wide])
    with pytest.raises(ValueError, match="no episodes given"):
        concatenate([])
    with pytest.raises(ValueError, match="arrays: select: no episode"):
        select(episodes, np.array([], int))


def test_numbers_of_any_type_that_loses_nothing_are_read():
    arrays = good_arrays()
    plain = Episodes.from_arrays(**{**arrays, "rewards": np.arange(N, dtype=np.float32)})
    for kind in (np.uint8, np.int64, np.float16, ">f8"):
        found = Episodes.from_arrays(**{**arrays, "rewards": np.arange(N).astype(kind)})
        np.testing.assert_array_equal(found.rewards, plain.rewards)
        assert found.rewards.dtype == np.float32


def test_episodes_without_timeouts_are_cut_at_the_limit():
    arrays = good_arrays()
    del arrays["timeouts"]
    arrays["terminals"][:] = False
    arrays["terminals"][2] = True
    found = Episodes.from_arrays(**arrays, limit=2)
    assert found.lengths.tolist() == [2, 1, 2, 1]
    assert found.timeouts.tolist() == [False, True, False, False, True, True]
    # A terminal in the last step that the environment allows is no timeout.
    arrays["terminals"][1] = True
    assert not Episodes.from_arrays(**arrays, limit=2).timeouts[1]
    timeouts = np.arange(N) == N - 1
    with pytest.raises(ValueError, match=r"episode of 3 steps from row 3, .* after 2"):
        Episodes.from_arrays(**arrays, timeouts=timeouts, limit=2)
