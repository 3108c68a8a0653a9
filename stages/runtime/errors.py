"""The two ways a stage ends early, both told in one line."""


class StageError(Exception):
    """A stage cannot go on: what happened, at which step (None before the first), and what to try."""

    def __init__(self, what: str, step: int | None, remedy: str) -> None:
        self.what, self.step, self.remedy = what, step, remedy
        at = "" if step is None else f" (step {step})"
        super().__init__(f"{what}{at}; {remedy}")

    def __reduce__(self) -> tuple[type["StageError"], tuple[str, int | None, str]]:
        return StageError, (self.what, self.step, self.remedy)
