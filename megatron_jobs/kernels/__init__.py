"""The arithmetic of a model: one public function each, with a plain reference beside it."""
