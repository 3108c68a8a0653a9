"""Fields: functions of a point in the scene box, learned by gradient descent."""
