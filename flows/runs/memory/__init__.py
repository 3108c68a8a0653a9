"""How much of a GPU's memory a run takes, stage by stage, and how it is made to fit."""
