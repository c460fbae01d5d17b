"""Studies that change one thing each: their configs, what they share, and the table."""

import pytest

from configs import ablations as configs
from configs import locomotion
from experiments import ablations


@pytest.fixture
def config():
    return configs.get_config("hopper,smoke")


def flat(config, prefix=""):
    found = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        more = flat(value, f"{name}.") if hasattr(value, "items") else {name: value}
        found.update(more)
    return found


def test_every_study_is_named_and_changes_something():
    config = configs.get_config("hopper")
    assert set(ablations.MEANING) == set(locomotion.STUDIES)
    first = flat(ablations.study_config(config, "none"))
    seen = set()
    for study in locomotion.STUDIES[1:]:
        own = flat(ablations.study_config(config, study))
        changed = tuple((k, own[k]) for k in own if own[k] != first[k])
        assert 0 < len(changed) <= 10, study  # references carry a change along
        assert changed not in seen, study
        seen.add(changed)


def test_the_shared_values_are_those_of_all_studies_but_what_a_study_changes(config):
    with config.unlocked():
        config.seed, config.shared.scales, config.shared.reward_steps = 7, (0.25,), 30
    for study in locomotion.STUDIES:
        own = ablations.study_config(config, study)
        assert own.seed == 7
        assert own.rewards.steps == (90 if study == "longer" else 30)
        assert own.evaluation.rows == config.shared.rows
        swept = study == "grid"
        assert (own.evaluation.scales == (0.25,)) != swept
    assert len(ablations.study_config(config, "grid").evaluation.scales) > 1


@pytest.mark.parametrize(
    ("study", "shared"),
    [
        ("high-rate", ("data", "base", "expert")),
        ("l2", ("data", "base", "expert", "rewards")),
        ("visited", ("data", "base", "expert", "rewards", "paper_rewards")),
        ("chain-kl", ("data", "base", "expert", "paper_rewards")),
        ("grid", ("data", "base", "expert", "rewards", "paper_rewards")),
        ("scratch-expert", ("data", "base")),
        ("short-base", ("data",)),
        ("no-energy", ("data",)),
        ("medium-base", ()),
    ],
)
def test_studies_share_the_models_that_they_leave_alone(config, study, shared, tmp_path):
    for stage in ("data", "base", "expert", "rewards", "paper_rewards"):
        folder = tmp_path / "none" / stage
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(stage)
    plain, own = (ablations.study_config(config, s) for s in ("none", study))
    folder = tmp_path / study
    folder.mkdir()
    for _ in range(2):
        ablations.share(plain, tmp_path / "none", own, folder)
        assert sorted(p.name for p in folder.iterdir()) == sorted(shared)
    for stage in shared:
        assert (folder / stage / "report.json").read_text() == stage


def test_the_table_compares_what_every_study_reached(config, tmp_path, monkeypatch):
    ran = []

    def run(own, workdir):
        ran.append(workdir.name)
        for stage in ("data", "base", "expert", "rewards", "paper_rewards"):
            (workdir / stage).mkdir(parents=True, exist_ok=True)
        row = lambda score: {"score": [score, 0, 0], "t_stop": 0, "scale": 1.0}
        tried = [(t, s, 100 * t + s) for t in (0, 2) for s in (0.1, 1.0)]
        methods = {"unsteered": row(10.0), "expert": row(50.0)}
        methods["score"] = row(30.0) | {"gap_closure": [0.5, 0.25, 0.75]}
        methods["means"] = row(12.0) | {"scale": 0.5, "t_stop": 2, "tried": tried}
        return {
            "methods": methods,
            "rewards": {"rewards": {"fvu": 0.1, "steered_fvu": 0.2}},
        }

    monkeypatch.setattr(ablations.locomotion, "main", run)
    with config.unlocked():
        config.studies = ("grid", "high-rate")
    result = ablations.main(config, tmp_path)
    assert ran == ["none", "high-rate", "grid"]
    assert list(result["studies"]) == ran
    page = (tmp_path / "report.md").read_text()
    (line,) = (text for text in page.splitlines() if text.startswith("| high-rate"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[2:7] == ["0.100", "0.200", "10.0", "50.0", "30.0"]
    assert "0.50" in cells[7]
    assert cells[8:] == ["12.0", "0.5, t >= 2", ""]
    assert "| t >= 2" in page
    (line,) = (text for text in page.splitlines() if text.startswith("| t >= 2"))
    assert [c.strip() for c in line.split("|")[2:-1]] == ["200", "201"]


def test_the_table_of_errors_says_where_a_reward_falls_short(tmp_path):
    config = configs.get_config("hopper,smoke,steering")
    assert "visited" in config.studies
    assert "grid" not in config.studies
    closed = {"gap_closure": [0.5, 0.25, 0.75]}
    speed = {"steps_per_second": 1234.4, "t_stop": 0, "scale": 1.0, "failure": 87.0}
    row = lambda score: {"score": [score, 0, 0], **speed}
    chosen = row(30.0) | closed | {"tried": [(0, 0.3, 11.0), (0, 1.0, 22.0)]}
    fits = {"fvu": 0.1, "steered_fvu": 0.2, "visited_fvu": 0.3}
    pulls = {"pull": 0.4, "steered_pull": 0.5, "visited_pull": -0.6}
    result = {
        "methods": {
            "unsteered": row(10.0),
            "expert": row(50.0),
            "score": row(30.0) | closed,
            "score-chosen": chosen,
            "smc": row(33.0) | closed,
        },
        "rewards": {"rewards": {**fits, **pulls}},
    }
    page = ablations.page(config, {"none": result, "candidates": result})
    lines = [text for text in page.splitlines() if text.startswith("| none")]
    cells = [cell.strip() for cell in lines[1].split("|")[2:-1]]
    shares = ["0.100", "0.200", "0.300", "0.400", "0.500", "-0.600"]
    assert cells == [*shares, "87", "11", "22", "1234"]
    assert "| return at 0.3 | return at 1 |" in page
    assert "- `smc`, particles that follow" in page
    assert "score 33.0, gap closed 0.50 [0.25, 0.75]" in page


def test_a_wrong_study_is_answered_with_the_nearest(config, tmp_path):
    with config.unlocked():
        config.studies = ("high-rat",)
    with pytest.raises(ValueError, match="did you mean 'high-rate'"):
        ablations.main(config, tmp_path)
    assert not list(tmp_path.iterdir())
