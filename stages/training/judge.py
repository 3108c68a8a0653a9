"""Training task: the judge, apart from the priors."""

from dreampolish.training.judge import JudgeSettings
from dreampolish.training.judge import train_judge as fit_judge
from schemas.trainings import PriorsTraining
from stages.training.session import TrainingPlace


def train_judge(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
    """Train the image-text judge into `<home>/judge` and return its retrieval figures on held-out objects."""
    settings = JudgeSettings(**config.judge.model_dump())
    scores = fit_judge(
        place.project / config.renders,
        place.project / config.split,
        place.project / config.home / "judge",
        place.work / "judge",
        settings,
    )
    journal = place.journal("judge")
    journal.metrics(settings.steps, {f"final/{name}": float(value) for name, value in scores.items()})
    journal.end("FINISHED")
    journal.send(place.tracker)
    return scores
