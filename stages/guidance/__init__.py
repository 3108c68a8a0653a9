"""Losses and priors that several stages share: reference view, view and text prior, targets, light, end of a stage."""
