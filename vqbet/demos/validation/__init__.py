"""Are demonstrations fit for training? Great Expectations, and checks of our own."""
