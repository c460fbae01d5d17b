"""The four mazes: layouts, coordinates, geometry and the true reward.

Coordinates are those of gymnasium-robotics' PointMaze: metres from the centre of the
map, x to the right, y up; cells are 1 m squares addressed (row, column) from the top
left. D4RL's own coordinates differ (see :func:`d4rl_to_xy`).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from diffreward.names import choose

RADIUS = 0.1
"""Radius of the agent's ball, metres."""
MARGIN = 0.26
"""Least distance from walls of sampled points; D4RL's data generator."""
GOAL_RADIUS = 0.45
"""The sparse reward is 1 within this distance of the goal; PointMaze."""

MAZE_NAMES = ("open", "umaze", "medium", "large")
"""What `make_maze` takes."""

_LAYOUTS = {
    "open": "####### #.....# #.....# #.....# #######",
    "umaze": "##### #...# ###.# #...# #####",
    "medium": ("######## #..##..# #..#...# ##...### #..#...# #.#..#.# #...#..# ########"),
    "large": (
        "############ #....#.....# #.##.#.#.#.# #......#...# #.####.###.# "
        "#..#.#.....# ##.#.#.#.### #..#...#...# ############"
    ),
}
# Goals 1-8 of the paper's data, in D4RL's coordinates.
_D4RL_GOALS = {
    "open": [
        (1, 1),
        (1, 5),
        (1.3, 1.7),
        (2, 3),
        (2.3, 4.3),
        (2.7, 3.1),
        (3, 1),
        (3, 5),
    ],
    "umaze": [(1, 1), (1, 2), (1, 3), (1.3, 2.7), (2, 3), (3, 1), (3, 2), (3, 3)],
    "medium": [(1, 1), (1, 6), (2, 2), (4, 4), (4, 6), (5, 3), (6, 1), (6, 6)],
    "large": [(1, 1), (1, 10), (3, 6), (3, 8), (5, 2), (5, 4), (7, 1), (7, 10)],
}


class Maze(NamedTuple):
    """A maze: where its walls are, and the eight goals of the paper's experts."""

    name: str
    walls: np.ndarray
    """``(rows, columns)`` bool."""
    goals: np.ndarray
    """``(8, 2)`` float64, metres; goal n of the paper is row n - 1."""


def make_maze(name: str) -> Maze:
    """The maze called open, umaze, medium or large."""
    choose("maze", name, MAZE_NAMES)
    walls = np.array([[c == "#" for c in row] for row in _LAYOUTS[name].split()])
    maze = Maze(name, walls, np.zeros((8, 2)))
    return maze._replace(goals=d4rl_to_xy(maze, np.array(_D4RL_GOALS[name])))


def cell_to_xy(maze: Maze, cell: np.ndarray) -> np.ndarray:
    """Centre of (row, column), fractions allowed; ``(..., 2)`` to ``(..., 2)``."""
    rows, columns = maze.walls.shape
    x = cell[..., 1] + 0.5 - columns / 2
    y = rows / 2 - (cell[..., 0] + 0.5)
    return np.stack([x, y], axis=-1)


def xy_to_cell(maze: Maze, xy: np.ndarray) -> np.ndarray:
    """The (row, column) that contains each point, clamped to the map."""
    rows, columns = maze.walls.shape
    row = np.floor(rows / 2 - xy[..., 1]).astype(int).clip(0, rows - 1)
    column = np.floor(xy[..., 0] + columns / 2).astype(int).clip(0, columns - 1)
    return np.stack([row, column], axis=-1)


def d4rl_to_xy(maze: Maze, qpos: np.ndarray) -> np.ndarray:
    """A D4RL maze2d position, (row, column) from the map's corner, in our metres.

    D4RL's ball has its origin at (1.2, 1.2) and its walls at whole numbers plus one, so
    cell c is centred at c - 0.2.
    """
    return cell_to_xy(maze, qpos + 0.2)


def wall_distance(maze: Maze, xy: np.ndarray) -> np.ndarray:
    """Distance of points ``(..., 2)`` to the nearest wall, 0 inside one.

    Exact up to 1 m; infinite where none of the 8 neighbouring cells is a wall.
    """
    cell = xy_to_cell(maze, xy)
    local = xy - cell_to_xy(maze, cell)
    padded = np.pad(maze.walls, 1, constant_values=True)
    squared = np.full(xy.shape[:-1], np.inf)
    for down, right in _NEIGHBOURS:
        gap_x = 0.5 - right * local[..., 0] if right else 0.0
        gap_y = 0.5 + down * local[..., 1] if down else 0.0
        wall = padded[cell[..., 0] + 1 + down, cell[..., 1] + 1 + right]
        gap = np.where(wall, gap_x * gap_x + gap_y * gap_y, np.inf)
        squared = np.minimum(squared, gap)
    inside = maze.walls[cell[..., 0], cell[..., 1]]
    return np.where(inside, 0.0, np.sqrt(squared))


def sample_free(
    maze: Maze, rng: np.random.Generator, count: int, margin: float = MARGIN
) -> np.ndarray:
    """Points uniform over the area at least ``margin`` from walls, ``(count, 2)``."""
    half = np.array(maze.walls.shape[::-1]) / 2
    found = np.empty((0, 2))
    while len(found) < count:
        proposal = rng.uniform(-half, half, (4 * count, 2))
        found = np.concatenate([found, proposal[wall_distance(maze, proposal) >= margin]])
    return found[:count]


def next_cells(maze: Maze) -> np.ndarray:
    """First step of a shortest path between cells, ``(cells, cells)`` of flat indices.

    Entry ``[goal, here]`` is the neighbour of ``here`` to walk to; of several, the first
    of left, right, up, down. -1 where there is no path and on the diagonal.
    """
    columns = maze.walls.shape[1]
    free = ~maze.walls.ravel()
    here, there = [], []
    for step in (-1, 1, -columns, columns):
        cells = np.flatnonzero(free)
        cells = cells[free[cells + step]]  # the border is wall, so this stays inside
        here.append(cells)
        there.append(cells + step)
    pairs = (np.concatenate(here), np.concatenate(there))
    ones = np.ones(len(pairs[0]))
    graph = csr_array((ones, pairs), shape=(free.size, free.size))
    distance = dijkstra(graph, unweighted=True)
    table = np.full((free.size, free.size), -1)
    # In reverse, so that the first of several equal neighbours is written last.
    for cells, neighbours in reversed(list(zip(here, there, strict=True))):
        reachable = np.isfinite(distance[:, cells])
        closer = reachable & (distance[:, neighbours] == distance[:, cells] - 1)
        table[:, cells] = np.where(closer, neighbours, table[:, cells])
    return table


def make_geodesic(
    maze: Maze, goal: np.ndarray, spacing: float = 0.1
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from points ``(..., 2)`` to walking distance to ``goal``.

    Shortest paths of the ball's centre on a grid with edges in 48 directions: about 1 %
    too long, and exact within the goal's cell and the four beside it.
    """
    rows, columns = maze.walls.shape
    shape = (round(rows / spacing) + 1, round(columns / spacing) + 1)
    lattice = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = cell_to_xy(maze, lattice * spacing - 0.5)
    clear = np.asarray(wall_distance(maze, points) >= RADIUS - 1e-9)
    node = np.where(clear, np.cumsum(clear).reshape(shape) - 1, -1)
    nodes = points[clear]
    here, there = [], []
    for move in _GRID_MOVES:
        target = lattice + move
        inside = np.all((target >= 0) & (target < shape), axis=-1)
        target = np.where(np.expand_dims(inside, -1), target, 0)
        ok = inside & clear & clear[target[..., 0], target[..., 1]]
        a, b = points[ok], points[target[ok][:, 0], target[ok][:, 1]]
        # Three centimetres of slack: else the only way round a corner is the node
        # diagonally off it, a detour that adds up over a maze.
        middle = [wall_distance(maze, a + f * (b - a)) for f in (0.2, 0.4, 0.6, 0.8, 0.5)]
        keep = np.min(middle, axis=0) >= RADIUS - 0.03
        here.append(node[ok][keep])
        there.append(node[target[ok][keep, 0], target[ok][keep, 1]])
    tree = KDTree(nodes)
    goal = np.asarray(goal, np.float64)
    # No more than 4: farther nodes may lie across two walls that touch at a corner.
    _, entry = tree.query(goal, k=4)
    here.append(np.full(4, len(nodes)))
    there.append(entry)
    a, b = np.concatenate(here), np.concatenate(there)
    nodes = np.concatenate([nodes, goal[None]])
    size = len(nodes)
    edges = np.linalg.norm(nodes[a] - nodes[b], axis=1)
    field = dijkstra(
        csr_array((edges, (a, b)), shape=(size, size)), directed=False, indices=size - 1
    )

    def geodesic(xy: np.ndarray) -> np.ndarray:
        gap, near = tree.query(xy, k=4)
        around = (gap + field[near]).min(axis=-1)
        apart = np.abs(xy_to_cell(maze, xy) - xy_to_cell(maze, goal)).sum(axis=-1)
        return np.where(apart <= 1, np.linalg.norm(xy - goal, axis=-1), around)

    return geodesic


def true_reward(
    next_observations: np.ndarray,
    goal: np.ndarray,
    kind: Literal["sparse", "dense"] = "sparse",
) -> np.ndarray:
    """PointMaze's reward of the state *after* each step, ``(..., obs_dim)`` to ``(...)``.

    The step from row i has ``next_observations`` row i + 1 (D4RL's files use row i).
    """
    choose("reward kind", kind, ("sparse", "dense"))
    distance = np.linalg.norm(next_observations[..., :2] - goal, axis=-1)
    if kind == "sparse":
        return (distance <= GOAL_RADIUS).astype(np.float32)
    return np.exp(-distance).astype(np.float32)


_NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
# Half of the directions: the grid's edges go both ways.
_GRID_MOVES = [
    np.array([i, j])
    for i in range(5)
    for j in range(-4, 5)
    if np.gcd(i, j) == 1 and (i, j) > (0, 0)
]
