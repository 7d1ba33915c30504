"""Floor 4: the full-screen console (Textual). Never imports torch; asks the engine, which never
calls it."""
