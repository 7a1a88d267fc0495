"""Text from a trained model: cache, sampling, generation."""
