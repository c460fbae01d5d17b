import numpy as np
import pytest

from diffreward.data import (
    MARGIN,
    MAZE_NAMES,
    cell_to_xy,
    d4rl_to_xy,
    make_geodesic,
    make_maze,
    next_cells,
    sample_free,
    true_reward,
    wall_distance,
    xy_to_cell,
)

mazes = pytest.mark.parametrize("name", MAZE_NAMES)


@mazes
def test_layout_and_coordinates_are_those_of_gymnasium_robotics(name):
    from gymnasium_robotics.envs.maze import maps, maze_v4

    theirs_by_name = {
        "open": maps.OPEN,
        "umaze": maps.U_MAZE,
        "medium": maps.MEDIUM_MAZE,
        "large": maps.LARGE_MAZE,
    }
    maze = make_maze(name)
    layout: list = theirs_by_name[name]
    np.testing.assert_array_equal(maze.walls, np.array(layout) == 1)
    theirs = maze_v4.Maze(layout, maze_size_scaling=1, maze_height=0.4)
    for cell in np.argwhere(~maze.walls):
        xy = theirs.cell_rowcol_to_xy(cell)
        np.testing.assert_allclose(cell_to_xy(maze, cell), xy)
        for offset in (-0.49, 0.49):
            np.testing.assert_array_equal(xy_to_cell(maze, xy + offset), cell)


def test_an_unknown_maze_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"unknown maze 'tiny'.*open, umaze"):
        make_maze("tiny")


@mazes
def test_goals_are_eight_different_points_in_free_space(name):
    maze = make_maze(name)
    assert len({tuple(goal) for goal in maze.goals}) == len(maze.goals) == 8
    assert (wall_distance(maze, maze.goals) >= MARGIN).all()


def test_d4rl_coordinates():
    # By hand, 5 x 7 map: x = q_col + 0.2 + 0.5 - 7 / 2, y = 5 / 2 - (q_row + 0.2 + 0.5).
    maze = make_maze("open")
    np.testing.assert_allclose(d4rl_to_xy(maze, np.array([1.0, 1.0])), [-1.8, 0.8])
    np.testing.assert_allclose(maze.goals[4], [4.3 + 0.7 - 3.5, 2.5 - (2.3 + 0.7)])


@mazes
def test_wall_distance_is_that_to_the_nearest_box(name):
    maze = make_maze(name)
    half = np.array(maze.walls.shape[::-1]) / 2
    points = np.random.default_rng(0).uniform(-half, half, (300, 2))
    boxes = cell_to_xy(maze, np.argwhere(maze.walls))
    expected = [
        min(np.hypot(*np.maximum(np.abs(point - box) - 0.5, 0)) for box in boxes)
        for point in points
    ]
    near = np.array(expected) <= 1
    ours = wall_distance(maze, points)
    np.testing.assert_allclose(ours[near], np.array(expected)[near], atol=1e-12)
    assert (ours[~near] > 1).all()


def test_free_points_are_uniform_over_the_area():
    # In the open maze they fill a rectangle: mean 0, variance side^2 / 12.
    points = sample_free(make_maze("open"), np.random.default_rng(0), 40_000)
    side = np.array([5.0, 3.0]) - 2 * MARGIN
    assert (np.abs(points) <= side / 2).all()
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(points.var(axis=0), side**2 / 12, rtol=0.02)


@mazes
def test_free_points_keep_the_margin_and_reach_every_cell(name):
    maze = make_maze(name)
    points = sample_free(maze, np.random.default_rng(0), 3000)
    assert points.shape == (3000, 2)
    assert (wall_distance(maze, points) >= MARGIN).all()
    assert len(np.unique(xy_to_cell(maze, points), axis=0)) == (~maze.walls).sum()


@pytest.mark.parametrize(
    ("name", "longest"), [("open", 6), ("umaze", 6), ("medium", 11), ("large", 19)]
)
def test_following_next_cells_walks_a_shortest_path(name, longest):
    # The longest shortest paths were counted independently, for the D4RL layouts.
    maze = make_maze(name)
    table, columns = next_cells(maze), maze.walls.shape[1]
    cells = np.flatnonzero(~maze.walls.ravel())
    steps_of = {}
    for goal in cells:
        for start in cells:
            here, steps = start, 0
            while here != goal:
                there = table[goal, here]
                assert abs(there - here) in (1, columns)
                assert not maze.walls.ravel()[there]
                here, steps = there, steps + 1
                assert steps <= longest
            steps_of[start, goal] = steps
    assert max(steps_of.values()) == longest
    for (start, goal), steps in steps_of.items():
        assert steps_of[goal, start] == steps
    assert (table[maze.walls.ravel()] == -1).all()


def test_equal_paths_prefer_left_then_right_then_up_then_down():
    maze = make_maze("open")
    table, columns = next_cells(maze), maze.walls.shape[1]
    goal, start = 1 * columns + 1, 3 * columns + 5
    assert table[goal, start] == start - 1
    assert table[start, goal] == goal + 1


def test_geodesic_is_the_straight_line_where_nothing_is_in_the_way():
    maze = make_maze("open")
    goal = maze.goals[2]
    points = sample_free(maze, np.random.default_rng(1), 500)
    straight = np.linalg.norm(points - goal, axis=1)
    excess = make_geodesic(maze, goal)(points) - straight
    assert excess.min() >= -1e-9
    # A kink at either end, and 0.8 % between the two nearest of 48 directions.
    assert (excess <= 0.05 + 0.008 * straight).all()
    assert np.median(excess / straight) < 0.01


def test_geodesic_goes_round_the_wall_of_the_umaze():
    # A taut string from (-1, 1) to (-1, -1) round the two corners (0.5, +-0.5), kept off
    # them by the ball's radius: tangent, arc, one metre down, arc, tangent.
    radius, to_corner = 0.1, np.hypot(1.5, 0.5)
    heading = -np.arctan2(0.5, 1.5) + np.arcsin(radius / to_corner)
    arc = radius * (np.pi / 2 + heading)
    length = 2 * (np.sqrt(to_corner**2 - radius**2) + arc) + 1
    geodesic = make_geodesic(make_maze("umaze"), np.array([-1.0, -1.0]))
    assert geodesic(np.array([-1.0, 1.0])) == pytest.approx(length, rel=0.015)


def test_geodesic_does_not_slip_between_walls_that_touch_at_a_corner():
    # Cells (4, 2) and (5, 3) of the medium maze touch in a point; by foot it is 3 m and
    # more round the block.
    maze = make_maze("medium")
    corner = cell_to_xy(maze, np.array([4.5, 2.5]))
    geodesic = make_geodesic(maze, corner + [-0.1, 0.1])
    offsets = np.array([[0.08, -0.08], [0.1, -0.1], [0.1, -0.3], [0.3, -0.1]])
    assert geodesic(corner + offsets).min() > 3


def test_true_reward():
    goal = np.array([1.0, 1.0])
    states = np.array([[1, 1, 9, 9], [1.45, 1, 0, 0], [1.4501, 1, 0, 0], [1, 3, 0, 0]])
    assert true_reward(states, goal).tolist() == [1, 1, 0, 0]
    dense = true_reward(states, goal, kind="dense")
    np.testing.assert_allclose(dense, np.exp([0, -0.45, -0.4501, -2]), rtol=1e-6)
