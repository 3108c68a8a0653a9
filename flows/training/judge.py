"""Training task: the judge, apart from the priors."""

from dreampolish.training.judge import JudgeSettings
from dreampolish.training.judge import train_judge as fit_judge
from flows.training.session import TrainingPlace
from schemas.trainings import PriorsTraining


def train_judge(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
    """Train the image-text judge into `<home>/judge` and return its retrieval figures on held-out objects."""
    settings = JudgeSettings(**config.judge.model_dump())
    scores = fit_judge(
        renders=place.project / config.renders,
        split=place.project / config.split,
        folder=place.project / config.home / "judge",
        work=place.work / "judge",
        settings=settings,
    )
    journal = place.journal("judge")
    journal.metrics(settings.steps, {f"final/{name}": float(value) for name, value in scores.items()})
    journal.end("FINISHED")
    journal.send(place.tracker)
    return scores
