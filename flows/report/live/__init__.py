"""The pages of runs while they go on: `dreampolish watch`, and the third server of `dreampolish up`. They read, and change no run."""
