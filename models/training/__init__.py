"""Training of shipped models from recipes: data, augmentation, loop, package."""
