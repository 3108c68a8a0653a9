"""How the embedded priors and the judge are trained."""
